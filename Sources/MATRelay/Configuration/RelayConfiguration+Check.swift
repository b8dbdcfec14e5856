import Glibc
import MATRuntime

/// What is wrong outside the configuration's own text; one line each.
public struct RelayError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

extension RelayConfiguration {
    /// What `mat-relay --check` looks at beyond the file itself: the state's directory, and what the host has to do for a gateway. Changes nothing.
    public func check() throws(RelayError) {
        try checkState()
        if let gateway {
            // What the program itself turns on, it says at its start.
            let problems = gateway.problems(own: LocalAddresses.now(), isForwardingTurnedOn: gateway.turnsForwardingOn)
            if !problems.isEmpty { throw RelayError(problems.map { "gateway: \($0)" }.joined(separator: "\n")) }
        }
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
