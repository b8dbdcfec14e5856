import Glibc
import MATRuntime

/// What is wrong outside the configuration's own text; one line each.
public struct RelayError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

extension RelayConfiguration {
    /// What `mat-relay --check` looks at beyond the file itself: addresses to listen on, the state's directory, and what the host has to do for a
    /// gateway. Changes nothing, and says all that is wrong at once.
    public func check() throws(RelayError) {
        let own = LocalAddresses.now()
        var problems = addresses.filter { !own.contains($0) }.map {
            "listen: \($0) is no address of this host; name one that it has, and what a translator makes of that as `advertised`"
        }
        do throws(RelayError) { try checkState() } catch { problems.append("\(error)") }
        // What the program itself turns on, it says at its start.
        problems += gateway?.problems(own: own, isForwardingTurnedOn: gateway?.turnsForwardingOn ?? false).map { "gateway: \($0)" } ?? []
        if !problems.isEmpty { throw RelayError(problems.joined(separator: "\n")) }
    }

    private func checkState() throws(RelayError) {
        guard let statePath else { return }
        let directory = statePath.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" }
        guard access(directory.isEmpty ? "/" : directory, W_OK | X_OK) == 0 else {
            let reason = String(cString: strerror(errno))
            throw RelayError("state: directory \(directory) can't be written: \(reason); make it, and give it to the user that mat-relay runs as")
        }
    }
}
