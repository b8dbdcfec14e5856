import ArgumentParser
import MATControl
import MATCore
import MATRuntime
import MATSignal

// Commands take the same texts as configuration files, with the same reasons and remedies where one is wrong.

/// A transform for `@Argument` and `@Option`.
func reading<Value>(_ kind: ConfigurationKind<Value>) -> @Sendable (String) throws -> Value {
    // A kind is a function of its text alone.
    nonisolated(unsafe) let kind = kind
    return { text in
        switch kind.parse(text) {
        case .value(let value): return value
        case .rejected(let reason, let remedy): throw ValidationError("it \(reason); \(remedy)")
        }
    }
}

extension ConfigurationKind where Value == DomainName {
    static var domainName: Self {
        Self { text in
            guard let name = DomainName(text), name != .root else {
                return .rejected(reason: "is not a domain name", remedy: "write it as in ims1.example.net")
            }
            return .value(name)
        }
    }

    /// Of a host that others are to find: from the root on, as no resolver adds to what a record holds.
    static var hostName: Self {
        Self { text in
            guard let name = DomainName(text), name != .root, NameAddresses.isName(text) else {
                return .rejected(reason: "is not a host's name", remedy: "write it as in ims1.example.net")
            }
            guard text.split(separator: ".").count > 1 else {
                return .rejected(
                    reason: "is one label, which nobody elsewhere can look up", remedy: "write the whole name, as in \(text).example.net")
            }
            return .value(name)
        }
    }
}

/// `--json`, which every command that shows something has.
struct OutputOptions: ParsableArguments {
    @Flag(help: "Print JSON, for programs.")
    var json = false

    /// Prints the value itself, or the text made of it.
    func print(_ value: some PrintedReport, as text: (TextStyle) -> String) throws(CommandFailure) {
        guard json else { return Swift.print(text(.forStandardOutput), terminator: "") }
        do throws(ControlError) {
            Swift.print(try ControlJSON.encodeIndented(Labelled(value)))
        } catch {
            throw CommandFailure(error)
        }
    }
}

/// Where a daemon listens, and what it is asked there.
protocol DaemonControl: ParsableArguments {
    associatedtype Command: RawRepresentable<String>

    static var daemon: String { get }
    /// What an answer may take, unless a command says otherwise.
    static var patience: Duration { get }
    var path: String { get }
}

extension DaemonControl {
    /// - Parameters:
    ///   - timeout: `nil` for `patience`.
    ///   - unanswered: what may be so although the daemon gave no answer, where it was asked to change something.
    func request<Report: Decodable>(
        _ command: Command, _ arguments: some Encodable = NoArguments(), as type: Report.Type, timeout: Duration? = nil, unanswered: String? = nil
    ) throws(CommandFailure) -> Report {
        try Self.request(command, arguments, as: type, at: path, timeout: timeout, unanswered: unanswered)
    }

    static func request<Report: Decodable>(
        _ command: Command, _ arguments: some Encodable = NoArguments(), as type: Report.Type, at path: String, timeout: Duration? = nil,
        unanswered: String? = nil
    ) throws(CommandFailure) -> Report {
        do throws(ControlError) {
            return try ControlClient.request(
                type, path: path, command: command.rawValue, arguments: arguments, timeout: timeout ?? patience, daemon: daemon)
        } catch {
            throw CommandFailure(error, unanswered: unanswered)
        }
    }
}

struct NodeControl: DaemonControl {
    typealias Command = NodeCommand

    static let daemon = "matd"
    static let patience: Duration = .seconds(5)

    @Option(name: .customLong("control"), help: ArgumentHelp("matd's control socket.", valueName: "path"))
    var path = DaemonFile.nodeControl.path
}

struct IMSControl: DaemonControl {
    typealias Command = IMSCommandName

    static let daemon = "imsd"
    static let patience: Duration = .seconds(10)

    @Option(name: .customLong("control"), help: ArgumentHelp("imsd's control socket.", valueName: "path"))
    var path = DaemonFile.imsControl.path
}
