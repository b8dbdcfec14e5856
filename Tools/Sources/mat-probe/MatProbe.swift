import ArgumentParser
import Glibc
import MATProbe
import MATRuntime

/// Measures what an application sees of a handover.
@main
struct MatProbe: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mat-probe", abstract: "Measures what applications see of a handover.", version: MATVersion.text,
        subcommands: [Stream.self, TCP.self, Watch.self, Event.self, Report.self, Delay.self])
}

/// Which end of a run this process is.
struct EndOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Serve one run on this port.", valueName: "port"))
    var listen: UInt16?

    @Option(parsing: .upToNextOption, help: ArgumentHelp("Connect to a server; a name is looked up.", valueName: "host port"))
    var connect: [String] = []

    @Flag(name: .customShort("4"), help: "IPv4 only.")
    var ipv4 = false

    @Flag(name: .customShort("6"), help: "IPv6 only.")
    var ipv6 = false

    @Option(help: ArgumentHelp("Write every sample into this file.", valueName: "file"))
    var log: String?

    func validate() throws {
        guard (listen != nil) != !connect.isEmpty else { throw ValidationError("Give either --listen PORT or --connect HOST PORT.") }
        guard listen != nil || peer != nil else { throw ValidationError("--connect needs a host and a port.") }
        guard !(ipv4 && ipv6) else { throw ValidationError("-4 and -6 exclude each other.") }
    }

    var peer: (host: String, port: UInt16)? {
        guard connect.count == 2, let port = UInt16(connect[1]) else { return nil }
        return (connect[0], port)
    }

    var family: AddressFamily? { ipv4 ? .ipv4 : ipv6 ? .ipv6 : nil }
}

/// A time as people type it: 1ms, 500us, 2s.
struct TimeArgument: ExpressibleByArgument {
    let nanoseconds: Nanoseconds

    init?(argument: String) {
        let units: [(String, Double)] = [("ms", 1e6), ("us", 1e3), ("s", 1e9)]
        guard let (unit, factor) = units.first(where: { argument.hasSuffix($0.0) }), let value = Double(argument.dropLast(unit.count)),
            value > 0, value * factor < 1e14
        else { return nil }
        nanoseconds = Nanoseconds(value * factor)
    }
}

struct Stream: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Send numbered UDP probes in both directions at once.")

    @OptionGroup var end: EndOptions

    @Option(help: "How long to send.")
    var seconds = 10.0

    @Option(help: "Time between probes: 1ms, 500us.")
    var interval: TimeArgument?

    func validate() throws {
        guard seconds > 0, seconds <= 14_400 else { throw ValidationError("--seconds goes up to 14400.") }
        if let interval, interval.nanoseconds < 50_000 { throw ValidationError("--interval cannot be below 50us.") }
    }

    func run() throws {
        Interruption.handle()
        try complaining {
            let log: StreamLog?
            if let peer = end.peer {
                log = try StreamRun.connect(
                    to: peer.host, port: peer.port, family: end.family, interval: interval?.nanoseconds ?? ProbeClock.perMillisecond,
                    duration: Nanoseconds(seconds * 1e9))
            } else {
                log = try StreamRun.listen(port: end.listen ?? 0, family: end.family)
            }
            guard let log else { throw ExitCode(1) }
            if let path = end.log { try log.write(to: path) }
            print(try log.summary())
        }
    }
}

struct TCP: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "tcp", abstract: "Transfer octets as fast as it goes, or at a rate.")

    @OptionGroup var end: EndOptions

    @Option(help: "How long to send.")
    var seconds = 10.0

    @Option(help: ArgumentHelp("Send at this rate at most.", valueName: "mbit/s"))
    var rate: UInt64?

    @Flag(help: "The server sends.")
    var reverse = false

    func validate() throws {
        guard seconds > 0, seconds <= 14_400 else { throw ValidationError("--seconds goes up to 14400.") }
        if let rate, rate == 0 || rate > 1_000_000 { throw ValidationError("--rate is 1 to 1000000 Mbit/s.") }
    }

    func run() throws {
        Interruption.handle()
        try complaining {
            let log: TransferLog?
            if let peer = end.peer {
                log = try TransferRun.connect(
                    to: peer.host, port: peer.port, family: end.family, duration: Nanoseconds(seconds * 1e9), megabitsPerSecond: rate,
                    isReversed: reverse)
            } else {
                log = try TransferRun.listen(port: end.listen ?? 0, family: end.family)
            }
            guard let log else { throw ExitCode(1) }
            if let path = end.log { try log.write(to: path) }
            print(try log.summary())
            if !log.header.isComplete { throw ExitCode(2) }
        }
    }
}

struct Delay: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Pass frames between two interfaces of this namespace, in both directions, each after a time; until ended by a signal.",
        discussion: "For kernels without netem. The interfaces must have no addresses; `deploy/lab delay` builds such a line into a host's link.")

    @Argument(help: "One interface.")
    var first: String

    @Argument(help: "The other.")
    var second: String

    @Argument(help: "Time under way in each direction: 20ms, 500us.")
    var time: TimeArgument

    func validate() throws {
        guard time.nanoseconds <= 60 * ProbeClock.perSecond else { throw ValidationError("The time goes up to 60s.") }
    }

    func run() throws {
        Interruption.handle()
        try complaining {
            let line = try DelayLine(between: first, and: second, delay: time.nanoseconds)
            line.run()
            if line.dropped > 0 { complain("\(line.dropped) frames were dropped") }
        }
    }
}

/// Runs a command; what went wrong is one line, and exit status 1.
func complaining(_ body: () throws -> Void) throws {
    do { try body() } catch let error as ProbeError {
        complain(error)
        throw ExitCode(1)
    }
}

func complain(_ error: some CustomStringConvertible) {
    let text = "mat-probe: \(error)\n"
    _ = text.withCString { write(2, $0, strlen($0)) }
}
