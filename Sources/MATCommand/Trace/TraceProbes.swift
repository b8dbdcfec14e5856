import CLinux
import Glibc
import MATRuntime
import MATSignal

/// The packets that `mat trace` sends. By raw sockets, which only root has.
enum TraceProbes {
    /// A first packet to somebody new waits in matd until DNS and its mapping server have answered.
    private static let patience: Duration = .seconds(3)
    /// When each is sent.
    private static let times: [Duration] = [.zero, .milliseconds(300), .milliseconds(1000), .milliseconds(2000)]
    /// Routers that are looked for: more than any way through the Internet that still works has behind a home's.
    static let hopsMax = 24
    private static let hopPatience: Duration = .milliseconds(1500)
    /// What traceroute(8) sends to: nobody listens there.
    private static let firstPort: UInt16 = 33434

    // MARK: As a program

    /// Sends ICMP echo requests to an address, as ping(8) does: matd maps them like any program's packets.
    static func echo(_ target: IPAddress) -> TraceFindings.Echo {
        guard let socket = ICMPSocket(target.family) else { return .unsendable(reason()) }
        let identifier = UInt16.random(in: 0 ... .max)
        let began = SystemClock.now().monotonic
        var sent: [MonotonicTime] = []
        while true {
            let elapsed = SystemClock.now().monotonic - began
            if sent.count < times.count, elapsed >= times[sent.count] {
                if let failure = socket.send(ICMPSocket.echo(target.family, identifier, UInt16(sent.count)), to: target) {
                    return .unsendable(failure)
                }
                sent.append(SystemClock.now().monotonic)
            }
            guard elapsed < patience else { return .silent(sent: sent.count) }
            let next = sent.count < times.count ? times[sent.count] : patience
            for message in socket.receive(for: next - elapsed) {
                guard let number = message.echoReply(target.family, identifier), sent.indices.contains(Int(number)) else { continue }
                return .answered(after: SystemClock.now().monotonic - sent[Int(number)])
            }
        }
    }

    // MARK: To the routers

    /// Which routers say that a packet went no further than them, of packets that leave as the agent's do.
    static func hops(to target: IPAddress, from own: IPAddress?) -> [TraceReport.Hop] {
        guard let answers = ICMPSocket(target.family) else { return [] }
        return OwnTraffic.withUDP(target.family) { hops(to: target, from: own, by: $0, answers) } ?? []
    }

    /// - Parameter descriptor: of the socket that they leave by.
    private static func hops(to target: IPAddress, from own: IPAddress?, by descriptor: Int32, _ answers: ICMPSocket) -> [TraceReport.Hop] {
        if let own { _ = SocketAddress.use(own, port: 0) { bind(descriptor, $0, $1) } }
        var hops: [Int: TraceReport.Hop] = [:]
        var sent: [Int: MonotonicTime] = [:]
        for number in 1...hopsMax {
            var limit = Int32(number)
            // IP_TTL, IPV6_UNICAST_HOPS
            setsockopt(descriptor, target.isIPv4 ? 0 : 41, target.isIPv4 ? 2 : 16, &limit, 4)
            let octet: [UInt8] = [0]
            let done = SocketAddress.use(target, port: firstPort + UInt16(number)) { sendto(descriptor, octet, 1, 0, $0, $1) }
            if done == 1 { sent[number] = SystemClock.now().monotonic }
        }
        let began = SystemClock.now().monotonic
        var reached: Int?
        while true {
            let elapsed = SystemClock.now().monotonic - began
            guard elapsed < hopPatience else { break }
            for message in answers.receive(for: hopPatience - elapsed) {
                guard let (port, isEnd) = message.quotedPort(target.family), port > firstPort, let began = sent[Int(port - firstPort)] else {
                    continue
                }
                let number = Int(port - firstPort)
                let took = SystemClock.now().monotonic - began
                hops[number] = TraceReport.Hop(
                    number: number, address: "\(message.source)", tookMilliseconds: Double(took.nanosecondsSaturated / 1000) / 1000)
                if isEnd { reached = min(reached ?? number, number) }
            }
        }
        // Behind the last that answered, or was reached, is nothing to tell.
        let last = reached ?? hops.keys.max() ?? 0
        return last == 0 ? [] : (1...last).map { hops[$0] ?? TraceReport.Hop(number: $0, address: nil, tookMilliseconds: nil) }
    }

    private static func reason() -> String {
        errno == EPERM || errno == EACCES ? "only root may send such packets" : String(cString: strerror(errno))
    }
}
