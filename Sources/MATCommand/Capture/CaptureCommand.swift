import ArgumentParser
import Glibc
import MATControl
import MATCore
import MATRuntime
import MATSignal

struct CaptureCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "capture", abstract: "Write signalling and both sides of translation into a capture file, for Wireshark.",
        discussion: """
            One file (pcapng) has MAT's own messages, packets between home addresses as programs see them (interface "inside"), and the same packets \
            as links carry them; each with a comment that says what it is on the other side. The dissector (mat.lua) shows messages, and what \
            is in datagrams. It ends after --seconds or --count, or with Ctrl-C. Run it as root; `mat capture --out - | wireshark -k -i -` shows it live.
            """)

    @Option(help: ArgumentHelp("Write to this file (mode 0600); - is standard output (default: mat-DATE.pcapng here).", valueName: "file"))
    var out: String?

    @Option(
        help: ArgumentHelp("Only what is between this peer's home address and this node, and signalling with it and with servers.", valueName: "hoa"),
        transform: reading(.homeAddress))
    var peer: HomeAddress?

    @Option(help: ArgumentHelp("End after so long.", valueName: "seconds"))
    var seconds: Double?

    @Option(help: ArgumentHelp("End after so many packets.", valueName: "count"))
    var count: Int?

    @Option(help: ArgumentHelp("Keep the first so many octets of each packet, as 128 for headers alone (default: all).", valueName: "octets"))
    var octets: Int?

    @OptionGroup var control: NodeControl

    func validate() throws {
        guard seconds.map({ $0 > 0 && $0 <= 86_400 }) ?? true else { throw ValidationError("--seconds takes from above 0 to 86400") }
        guard count.map({ $0 > 0 }) ?? true else { throw ValidationError("--count takes a number above 0") }
        guard octets.map({ $0 >= 64 }) ?? true else { throw ValidationError("--octets takes at least 64: less holds no headers") }
    }

    func run() throws {
        let status = try control.request(.status, as: NodeReport.self)
        let capture = try Capture(self, status)
        try capture.run()
    }
}

/// A capture that is under way.
private final class Capture {
    /// How often what matd knows is asked anew, and what has waited is written.
    private static let askInterval: Duration = .seconds(1), writeInterval: Duration = .milliseconds(50)

    private let command: CaptureCommand
    private let loop: EventLoop
    private let outsideTap: OutsideTap
    private let insideTap: InsideTap
    private var sides: CaptureSides
    private let path: String
    private let file: OutputFile
    private var interfaces: [CaptureSides.Side: UInt32] = [:]
    private var written = 0, signalling = 0, inside = 0
    private var failure: CommandFailure?

    init(_ command: CaptureCommand, _ status: NodeReport) throws {
        self.command = command
        let homes = status.homes.compactMap { home in home.prefix.flatMap { IPPrefix($0) } ?? IPAddress(home.address).map { IPPrefix($0) } }
        loop = try EventLoop()
        // Before `nft` is started, which starts a thread too.
        let loop = loop
        try loop.onSignals([SIGINT, SIGTERM, SIGHUP, SIGPIPE]) { _ in loop.stop() }
        sides = CaptureSides(peer: command.peer?.address)
        sides.know(status)
        outsideTap = try OutsideTap()
        insideTap = try InsideTap(homes: homes, octets: command.octets ?? Int(PcapNG.octetsMax))
        let date = Quantity.date(unixMilliseconds: SystemClock.now().wallMilliseconds).replacing(" UTC", with: "").replacing(" ", with: "-")
            .replacing(":", with: "")
        path = command.out ?? "mat-\(date).pcapng"
        file = try OutputFile(path, .fixed(0o600), isFollowed: true)
        let addresses = homes.map { $0.length == 128 ? "\($0.address)" : "\($0)" }.joined(separator: ", ")
        write(
            PcapNG.section(
                system: "Linux", application: "mat \(MATVersion.text)", comment: "mat capture of the node with the home addresses \(addresses)"))
    }

    func run() throws {
        try loop.watch(insideTap.descriptor) { [unowned self] in insideTap.read { sides.take($0) } }
        try loop.watch(outsideTap.descriptor) { [unowned self] in outsideTap.read { sides.take($0) } }
        every(Self.writeInterval) { [unowned self] in writeDue() }
        every(Self.askInterval) { [unowned self] in
            // A matd that is away for a moment knows it again when it is back.
            if let status = try? command.control.request(.status, as: NodeReport.self) { sides.know(status) }
        }
        if let seconds = command.seconds { loop.schedule(after: .milliseconds(Int64(seconds * 1000))) { [unowned self] in loop.stop() } }
        StandardError.write(
            "mat: capturing\(path == "-" ? "" : " to \(path)")\(command.seconds == nil && command.count == nil ? "; Ctrl-C ends it" : "")")
        try loop.run()
        insideTap.read { sides.take($0) }
        outsideTap.read { sides.take($0) }
        insideTap.stop()
        if failure == nil { writeDue(all: true) }
        if let failure { throw failure }
        let lost = outsideTap.lost + UInt64(insideTap.lost)
        StandardError.write(
            "mat: \(Quantity.count(Int64(written), "packet")): \(signalling) of signalling, \(inside) inside, \(written - signalling - inside) outside"
                + (lost > 0 ? "; \(lost) more came too fast" : ""))
    }

    private func every(_ interval: Duration, _ body: @escaping () -> Void) {
        loop.schedule(after: interval) { [unowned self] in
            body()
            every(interval, body)
        }
    }

    private func writeDue(all: Bool = false) {
        outsideTap.countLost()
        sides.isLossy = outsideTap.lost + UInt64(insideTap.lost) > 0
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        for found in sides.due(nanoseconds: now.nanoseconds, all: all) {
            guard written < command.count ?? .max else { return loop.stop() }
            let packet = found.packet
            let kept = Array(packet.octets.prefix(command.octets ?? Int(PcapNG.octetsMax)))
            write(
                PcapNG.packet(
                    interface: interface(packet.side), nanoseconds: packet.nanoseconds, kept, length: packet.length, packet.direction,
                    comment: found.comment))
            written += 1
            if found.isSignalling { signalling += 1 } else if packet.side == .inside { inside += 1 }
        }
    }

    private func interface(_ side: CaptureSides.Side) -> UInt32 {
        if let known = interfaces[side] { return known }
        let number = UInt32(interfaces.count)
        interfaces[side] = number
        switch side {
        case .inside: write(PcapNG.interface("inside", "between home addresses, as programs on this host see them"))
        case .outside(let link): write(PcapNG.interface(link, "as the link carries them"))
        }
        return number
    }

    private func write(_ octets: [UInt8]) {
        guard failure == nil else { return }
        do throws(SystemError) {
            try FileReplacement.write(octets, to: file.descriptor, path)
        } catch {
            // Who reads has seen enough.
            failure = error.errno == EPIPE ? nil : CommandFailure("can't \(error)")
            loop.stop()
        }
    }
}
