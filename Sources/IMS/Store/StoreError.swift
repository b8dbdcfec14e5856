import GRDB
import Glibc

/// Why the store can't be used or did not take a change, in words that say what to do.
public struct StoreError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What can be hoped for.
    public enum Kind: Hashable, Sendable {
        /// It goes away when the disk has room again or whatever else is in the way has gone.
        case passing
        /// What the disk holds is not what was written; a person has to decide.
        case damaged
        /// It never worked: a directory that isn't there, a file of somebody else.
        case unusable
    }

    public let description: String
    public let kind: Kind

    public init(_ description: String, kind: Kind = .passing) {
        self.description = description
        self.kind = kind
    }

    init(_ error: any Error, _ path: String) {
        guard let error = error as? DatabaseError else {
            self.init("the store \(path) can't be used: \(error)")
            return
        }
        let remedy: String
        var kind = Kind.passing
        switch error.resultCode {
        case .SQLITE_CORRUPT, .SQLITE_NOTADB:
            remedy = "it is damaged or no store; restore it from a backup, or move it away and let the nodes register anew"
            kind = .damaged
        case .SQLITE_FULL: remedy = "the disk is full; make room"
        case .SQLITE_READONLY, .SQLITE_PERM, .SQLITE_AUTH:
            remedy = "it is not writable; give file and directory to the user that imsd runs as"
            // A file system that became read-only after an error refuses like a file of somebody else.
            kind = access(path, W_OK) == 0 || errno == EROFS ? .passing : .unusable
        case .SQLITE_CANTOPEN where access(path, R_OK | W_OK) == 0:
            // The database is there, so it is its journal that can't be made beside it.
            remedy = "its journal can't be made; if the disk is full make room, or else let imsd write to its directory"
        case .SQLITE_CANTOPEN:
            remedy = "it can't be opened; make its directory, and give it to the user that imsd runs as"
            kind = .unusable
        case .SQLITE_IOERR: remedy = "the disk is full or reports errors; see df and dmesg"
        case .SQLITE_BUSY, .SQLITE_LOCKED: remedy = "another process holds it; is another imsd running?"
        default: remedy = "see the message"
        }
        self.init("the store \(path): \(error.message ?? "error \(error.resultCode.rawValue)"); \(remedy)", kind: kind)
    }
}
