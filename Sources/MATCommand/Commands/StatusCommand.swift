import ArgumentParser
import Glibc
import MATRuntime
import MATSignal

struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show this node: home addresses, where they are registered, mobile addresses, peers.",
        discussion: "With --wait: waits until every home address is registered, and fails (1) if that takes longer.")

    @OptionGroup var control: NodeControl
    @OptionGroup var output: OutputOptions

    @Option(help: ArgumentHelp("Wait until registered, for at most this many seconds.", valueName: "seconds"))
    var wait: Double?

    func validate() throws {
        // A day is more patience than any script has, and keeps the arithmetic small.
        guard wait.map({ $0 >= 0 && $0 <= 86_400 }) ?? true else { throw ValidationError("--wait takes from 0 to 86400 seconds") }
    }

    func run() throws {
        guard let wait else {
            let status = try control.request("status")
            return output.print(status) { StatusReport.text(status, $0) }
        }
        let deadline = SystemClock.now().monotonic + .milliseconds(Int64(wait * 1000))
        var outcome = request()
        while !Self.isRegistered(outcome), SystemClock.now().monotonic < deadline {
            usleep(100_000)
            outcome = request()
        }
        let status = try outcome.get()
        output.print(status) { StatusReport.text(status, $0) }
        guard Self.isRegistered(outcome) else {
            throw CommandFailure("not registered after \(Quantity.duration(seconds: Int64(wait)))")
        }
    }

    /// A daemon that is just being started is waited for as well.
    private func request() -> Result<JSONValue, CommandFailure> {
        do throws(CommandFailure) {
            return .success(try control.request("status"))
        } catch {
            return .failure(error)
        }
    }

    private static func isRegistered(_ outcome: Result<JSONValue, CommandFailure>) -> Bool {
        guard case .success(let status) = outcome else { return false }
        return status["registered"]?.bool ?? false
    }
}
