import Glibc

/// Files with secrets: private keys, passwords. They count only if nobody but their owner can read them, and their owner is one of those who are
/// to know them; what others could have read or put there is no secret.
public enum SecretFile {
    /// Accounts below are the system's own (Debian policy 9.2.2). Root looks at a daemon's files for it, as `imsd --check` by hand does.
    private static let peoplesUsers: uid_t = 1000

    /// What this process makes from now on, store, state and sockets, is nobody else's business, whoever starts it and how; what others may see gets
    /// its mode by name.
    public static func makeAllPrivate() { umask(0o077) }

    public static func read(_ path: String) throws(SecretFileError) -> String {
        let text: String
        do throws(SystemError) {
            text = try TextFile.read(path)
        } catch {
            throw refusedEntry(path, error)
        }
        var status = stat()
        guard stat(path, &status) == 0 else { throw .unreadable(SystemError("look at \(path)"), remedy: nil) }
        if let reason = objection(path, mode: status.st_mode & 0o7777, owner: status.st_uid, reader: geteuid()) { throw .exposed(reason) }
        return text
    }

    /// Why a file of this mode and owner is no secret of this reader's, with what to do; `nil` if it is one.
    static func objection(_ path: String, mode: mode_t, owner: uid_t, reader: uid_t) -> String? {
        guard mode & 0o077 == 0 else { return "others may read \(path) (mode \(String(mode, radix: 8))); run chmod 600 \(path)" }
        if owner == reader || owner == 0 || reader == 0 && owner < peoplesUsers { return nil }
        return "\(path) belongs to \(UserName.of(owner)), who could change it; run chown \(UserName.of(reader)) \(path)"
    }

    /// "Permission denied" is most often the wrong owner: a key that root made, for a daemon with a user of its own.
    private static func refusedEntry(_ path: String, _ error: SystemError) -> SecretFileError {
        var status = stat()
        guard error.errno == EACCES, stat(path, &status) == 0, status.st_uid != geteuid() else { return .unreadable(error, remedy: nil) }
        let reader = UserName.of(geteuid())
        return .unreadable(
            error, remedy: "it belongs to \(UserName.of(status.st_uid)), and this is run by \(reader): run it as root, or chown \(reader) \(path)")
    }
}

/// Why a secret is not taken from a file.
public enum SecretFileError: Error, CustomStringConvertible {
    /// With what to do about it, if that is known.
    case unreadable(SystemError, remedy: String?)
    case exposed(String)

    public var description: String {
        switch self {
        case .unreadable(let error, let remedy): remedy.map { "\(error); \($0)" } ?? "\(error)"
        case .exposed(let reason): reason
        }
    }

    /// The same with a remedy, unless one is known already.
    public func remedied(by remedy: (SystemError) -> String?) -> SecretFileError {
        guard case .unreadable(let error, nil) = self else { return self }
        return .unreadable(error, remedy: remedy(error))
    }
}
