import ArgumentParser
import Glibc
import MATControl
import MATRuntime
import MATSignal

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show this node: home addresses, where they are registered, mobile addresses, peers.",
        discussion: "With --wait: waits until every home address is registered, and fails (1) if that takes longer.")

    @Flag(help: "Show peers' names as well, as the reverse DNS has them.")
    var names = false

    @OptionGroup var control: NodeControl
    @OptionGroup var watching: WatchOptions
    @OptionGroup var output: OutputOptions

    @Option(help: ArgumentHelp("Wait until registered, for at most this many seconds.", valueName: "seconds"))
    var wait: Double?

    func validate() throws {
        guard wait == nil || !watching.watch else { throw ValidationError("Give --wait or --watch, not both") }
        // A day is more patience than any script has, and keeps the arithmetic small.
        guard wait.map({ $0 >= 0 && $0 <= 86_400 }) ?? true else { throw ValidationError("--wait takes from 0 to 86400 seconds") }
    }

    func run() throws {
        let names = names ? HostNames() : nil
        func text(_ status: NodeReport, _ style: TextStyle) -> String {
            StatusText.text(status, names: names?.of(status.peers.map(\.home)) ?? [:], style)
        }
        guard let wait else {
            let control = control
            return try watching.run(output, { () throws(CommandFailure) in try control.request(.status, as: NodeReport.self) }, as: text)
        }
        let deadline = SystemClock.now().monotonic + .milliseconds(Int64(wait * 1000))
        var outcome = request()
        while !Self.isRegistered(outcome), !Self.isForbidden(outcome), SystemClock.now().monotonic < deadline {
            usleep(100_000)
            outcome = request()
        }
        let status = try outcome.get()
        try output.print(status) { text(status, $0) }
        guard Self.isRegistered(outcome) else {
            throw CommandFailure("not registered after \(Quantity.duration(seconds: Int64(wait)))")
        }
    }

    /// A daemon that is just being started is waited for as well.
    private func request() -> Result<NodeReport, CommandFailure> {
        do throws(CommandFailure) {
            return .success(try report())
        } catch {
            return .failure(error)
        }
    }

    private func report() throws(CommandFailure) -> NodeReport { try control.request(.status, as: NodeReport.self) }

    /// Which waiting does not change.
    private static func isForbidden(_ outcome: Result<NodeReport, CommandFailure>) -> Bool {
        if case .failure(let failure) = outcome { failure.isForbidden } else { false }
    }

    private static func isRegistered(_ outcome: Result<NodeReport, CommandFailure>) -> Bool {
        guard case .success(let status) = outcome else { return false }
        return status.registered
    }
}
