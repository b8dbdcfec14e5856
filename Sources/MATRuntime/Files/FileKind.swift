import Glibc

/// What stands at a path where a file is wanted.
public enum FileKind: Hashable, Sendable {
    case file, directory, pipe, socket, characterDevice, blockDevice, other

    /// - Parameter mode: `st_mode`.
    init(mode: mode_t) {
        switch mode & S_IFMT {
        case S_IFDIR: self = .directory
        case S_IFIFO: self = .pipe
        case S_IFSOCK: self = .socket
        case S_IFCHR: self = .characterDevice
        case S_IFBLK: self = .blockDevice
        case S_IFREG: self = .file
        default: self = .other
        }
    }

    /// Behind links; `nil` if nothing is there, or it can't be seen.
    public static func of(_ path: String) -> FileKind? {
        var status = stat()
        return stat(path, &status) == 0 ? FileKind(mode: status.st_mode) : nil
    }

    /// As in "it is a FIFO".
    public var words: String {
        switch self {
        case .file: "a file"
        case .directory: "a directory"
        case .pipe: "a FIFO"
        case .socket: "a socket"
        case .characterDevice, .blockDevice: "a device"
        case .other: "something else"
        }
    }

    /// - Parameter operation: what was to be done, with the path.
    func refused(_ operation: String) -> SystemError {
        SystemError(operation, reason: "it is \(words), not a file", errno: self == .directory ? EISDIR : EINVAL)
    }
}

/// Paths that stand for what a process was given open by whoever started it: a pipe there is meant, as in `<(command)` of a shell.
public enum OwnDescriptor {
    /// The descriptor that a path names; `nil` of any other path.
    public static func number(of path: String) -> Int32? {
        switch path {
        case "/dev/stdin": return 0
        case "/dev/stdout": return 1
        case "/dev/stderr": return 2
        default: break
        }
        for directory in ["/dev/fd/", "/proc/self/fd/"] where path.hasPrefix(directory) { return Int32(path.dropFirst(directory.count)) }
        return nil
    }
}
