import MATRuntime

/// What exit statuses mean, the same for all subcommands; 64 (EX_USAGE) for wrong usage comes from the argument parser.
public enum ExitStatus: Int32, Sendable {
    case done = 0
    /// The answer is no, or something failed.
    case failed = 1
    /// The daemon can't be reached, so nothing is known.
    case unreachable = 2
    /// Of `mat run`, as shells have it: the command can't be run, or is not there.
    case commandNotRun = 126
    case commandNotFound = 127
}

/// Why a command ends without success: for the person at the keyboard, with what to do.
public struct CommandFailure: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    public let status: ExitStatus

    public init(_ description: String, status: ExitStatus = .failed) {
        self.description = description
        self.status = status
    }

    init(_ error: ControlError) {
        self.init(error.description, status: error.isUnreachable ? .unreachable : .failed)
    }
}
