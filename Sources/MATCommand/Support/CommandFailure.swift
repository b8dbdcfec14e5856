import MATRuntime

/// What exit statuses mean, the same for all subcommands; 64 (EX_USAGE) for wrong usage comes from the argument parser.
public enum ExitStatus: Int32, Sendable {
    case done = 0
    /// The answer is no, or something failed.
    case failed = 1
    /// The daemon can't be reached, so nothing is known.
    case unreachable = 2
    /// The daemon was asked, and gave no answer in time: it may have done it, or still do it.
    case unanswered = 3
    /// Of `mat run`, as shells have it: the command can't be run, or is not there.
    case commandNotRun = 126
    case commandNotFound = 127
}

/// Why a command ends without success: for the person at the keyboard, with what to do.
public struct CommandFailure: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    public let status: ExitStatus
    /// This user may not talk to the daemon, of which nothing else is known.
    let isForbidden: Bool

    public init(_ description: String, status: ExitStatus = .failed) {
        self.init(description, status, isForbidden: false)
    }

    private init(_ description: String, _ status: ExitStatus, isForbidden: Bool) {
        self.description = description
        self.status = status
        self.isForbidden = isForbidden
    }

    /// - Parameter unanswered: of something that changes what is there: what may be so all the same, and where it shows.
    init(_ error: ControlError, unanswered: String? = nil) {
        switch error.cause {
        case .answer: self.init(error.description)
        case .absent: self.init(error.description, .unreachable, isForbidden: false)
        case .forbidden: self.init(error.description, .unreachable, isForbidden: true)
        case .unanswered: self.init(unanswered.map { "\(error.description); \($0)" } ?? error.description, .unanswered, isForbidden: false)
        }
    }
}
