import CLinux
import Glibc

/// A file that takes the place of another, whole and durably: written beside it without a name, synced, named as nobody guesses, and renamed over it.
/// Until then, and if it comes to nothing, the earlier one is there as it was.
///
/// ```
///   init ──► write, write, ... ──► commit: the file has its name
///      \______________________└──► discard, or nothing: no trace of it
/// ```
/// A signal that ends the program leaves no trace either. Where the file system has no files without names (NFS, FAT) the file has one that nobody
/// guesses from the start; such a leftover goes when the same file is written an hour later.
///
/// A link stays, and leads to the new file. The new one has the owner of the earlier one, since a name server or a daemon may live on that, and its
/// mode unless that is fixed. What is no regular file is refused: a rename would take a device away from all that use it.
public final class FileReplacement {
    public enum Permissions: Sendable {
        /// The mode of the earlier file, and its access control list; of a first one this mode, less what the umask takes. Whose owner can't be kept
        /// is refused.
        case kept(new: mode_t)
        /// This mode whatever was there: of what a program keeps for itself. Where the owner can't be kept it becomes the writer's.
        case fixed(mode_t)
    }

    /// What is left of one whose program died: of so long ago nobody writes to it any more.
    private static let leftoverAge = 3600
    private static let suffix = ".new"
    /// Of the target's name within the temporary one; NAME_MAX is 255.
    private static let nameOctetsMax = 200

    /// As it was given, for messages: nobody knows another name of it.
    private let path: String
    private let place: FilePlace
    private let temporary: String
    /// Whether it has its own name, and what is to be taken away if it comes to nothing.
    private var isCommitted = false, isNamed = false
    public private(set) var descriptor: Int32

    /// - Parameter givesToDirectorysOwner: a first file that root makes in a daemon's directory becomes the daemon's.
    public init(_ path: String, _ permissions: Permissions, givesToDirectorysOwner: Bool = false) throws(SystemError) {
        self.path = path
        place = try FilePlace(path)
        temporary = Self.prefix(place.name) + Self.digits(.random(in: 0 ... .max)) + Self.suffix
        descriptor = -1
        removeLeftovers()
        let firstMode: mode_t
        switch permissions {
        case .kept(let new): firstMode = place.present == nil ? new : 0o600
        case .fixed(let mode): firstMode = mode
        }
        descriptor = Self.canName ? mat_open_unnamed(place.directory, firstMode) : -1
        if descriptor < 0 {
            descriptor = mat_open_at(place.directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, firstMode)
            guard descriptor >= 0 else { throw refused() }
            isNamed = true
        }
        if let present = place.present {
            try keepOwner(of: present, permissions)
        } else if givesToDirectorysOwner {
            TextFile.giveToDirectorysOwner(descriptor, path)
        }
    }

    deinit { discard() }

    public func write(_ octets: some Sequence<UInt8>) throws(SystemError) { try Self.write(octets, to: descriptor, path) }

    /// Gives it its name. It may be written to further: so who reads it may follow it as it grows.
    ///
    /// - Parameter isSynced: what was written is on the disk first. If not, a crash may leave an empty file.
    public func commit(isSynced: Bool = true) throws(SystemError) {
        guard !isCommitted, descriptor >= 0 else { return }
        guard !isSynced || fsync(descriptor) == 0 else { throw SystemError("write \(path)") }
        if !isNamed {
            guard mat_name_unnamed(descriptor, place.directory, temporary) == 0 else { throw SystemError("write \(path)") }
            isNamed = true
        }
        guard renameat(place.directory, temporary, place.directory, place.name) == 0 else { throw SystemError("write \(path)") }
        isCommitted = true
        if isSynced { place.sync() }
    }

    /// Takes away what has not been committed, and ends the writing.
    public func discard() {
        if isNamed, !isCommitted { unlinkat(place.directory, temporary, 0) }
        isNamed = false
        if descriptor >= 0 { close(descriptor) }
        descriptor = -1
    }

    /// - Parameter path: for messages.
    package static func write(_ octets: some Sequence<UInt8>, to descriptor: Int32, _ path: String) throws(SystemError) {
        var rest = Array(octets)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                throw SystemError("write \(path)")
            }
            rest = rest.dropFirst(count)
        }
    }

    // MARK: Whose it is

    private func keepOwner(of present: stat, _ permissions: Permissions) throws(SystemError) {
        var made = stat()
        guard fstat(descriptor, &made) == 0 else { throw SystemError("write \(path)") }
        let isOthers = present.st_uid != made.st_uid || present.st_gid != made.st_gid
        let isKept = !isOthers || fchown(descriptor, present.st_uid, present.st_gid) == 0
        guard case .kept = permissions else { return }
        guard isKept else {
            throw SystemError(
                "write \(path)",
                reason: "it belongs to \(UserName.of(present.st_uid)), and only root may replace it and leave it so: run this as root",
                errno: EPERM)
        }
        // Behind the owner, since the kernel takes bits away from a file that changes hands.
        guard fchmod(descriptor, present.st_mode & 0o7777) == 0 else { throw SystemError("write \(path)") }
        place.copyAttributes(to: descriptor)
    }

    /// Why nothing can be written beside it.
    private func refused() -> SystemError {
        guard place.present != nil, [EACCES, EPERM, EROFS].contains(errno) else { return SystemError("write \(path)") }
        let number = errno
        return SystemError(
            "write \(path)", reason: "a new file is written beside it, and its directory takes none: \(String(cString: strerror(number)))",
            errno: number)
    }

    // MARK: Temporary names

    /// Whether a file without a name can get one. A root directory made for one program may have no /proc.
    private static var canName: Bool { access("/proc/self/fd", X_OK) == 0 }

    private static func prefix(_ name: String) -> String { ".\(String(decoding: Array(name.utf8.prefix(nameOctetsMax)), as: UTF8.self))." }

    private static func digits(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// Files of this target that this user began, and that have long been left alone.
    private func removeLeftovers() {
        let copy = place.readableDirectory()
        // A directory that can be written and not be read shows none.
        guard copy >= 0 else { return }
        guard let directory = fdopendir(copy) else {
            close(copy)
            return
        }
        defer { closedir(directory) }
        let prefix = Self.prefix(place.name)
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            guard name.hasPrefix(prefix), name.hasSuffix(Self.suffix) else { continue }
            let digits = name.dropFirst(prefix.count).dropLast(Self.suffix.count)
            var status = stat()
            guard digits.count == 16, digits.allSatisfy(\.isHexDigit),
                fstatat(place.directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0, FileKind(mode: status.st_mode) == .file,
                status.st_uid == geteuid(), time(nil) - status.st_mtim.tv_sec > Self.leftoverAge
            else { continue }
            unlinkat(place.directory, name, 0)
        }
    }
}

/// Where a file is to be, behind all links: the directory, held open, and the name in it.
private final class FilePlace {
    let directory: Int32
    let name: String
    /// Of the file that is there.
    let present: stat?
    private let resolved: String

    init(_ path: String) throws(SystemError) {
        let operation = "write \(path)"
        let found = try Self.find(path, operation)
        let end = found.resolved.lastIndex(of: "/").map { found.resolved.index(after: $0) } ?? found.resolved.startIndex
        let (around, own) = (found.resolved[..<end], String(found.resolved[end...]))
        guard !own.isEmpty, own != ".", own != ".." else { throw FileKind.directory.refused(operation) }
        (present, resolved, name) = (found.present, found.resolved, own)
        directory = mat_open_path(around.isEmpty ? "." : String(around))
        guard directory >= 0 else { throw SystemError(operation) }
        try check(operation)
    }

    deinit { close(directory) }

    /// To be closed by who asks; negative if it may not be read.
    func readableDirectory() -> Int32 { mat_open_at(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0) }

    /// The name outlasts a crash too. What can't be synced, by whom it may not be read or on a file system that has no such thing, is as durable as it
    /// gets.
    func sync() {
        let copy = readableDirectory()
        guard copy >= 0 else { return }
        _ = fsync(copy)
        close(copy)
    }

    /// As the kernel's fs.protected_regular: who put a file where anybody may put some would be given what is written for another.
    private func check(_ operation: String) throws(SystemError) {
        guard let present else { return }
        var around = stat()
        guard fstat(directory, &around) == 0, fstatat(directory, name, &around, AT_SYMLINK_NOFOLLOW) == 0, around.st_ino == present.st_ino,
            around.st_dev == present.st_dev, fstat(directory, &around) == 0
        else { throw SystemError(operation, reason: "it is being moved while it is written; try again", errno: EAGAIN) }
        let isAnybodys = around.st_mode & S_ISVTX != 0 && around.st_mode & 0o022 != 0
        guard !isAnybodys || present.st_uid == geteuid() || present.st_uid == around.st_uid else {
            throw SystemError(
                operation, reason: "it belongs to \(UserName.of(present.st_uid)), in a directory where anybody may put files; name another",
                errno: EACCES)
        }
    }

    /// By the kernel, which does not follow links that somebody else has put into a directory of all (fs.protected_symlinks).
    private static func find(_ path: String, _ operation: String) throws(SystemError) -> (present: stat?, resolved: String) {
        var status = stat()
        let found = mat_open_path(path)
        guard found >= 0 else {
            let number = errno
            guard number == ENOENT else { throw SystemError(operation, errno: number) }
            // A file that is to be made, or a link to one that is not there.
            guard lstat(path, &status) != 0 else {
                throw SystemError(operation, reason: "it is a link to what does not exist; make that file, or take the link away", errno: ENOENT)
            }
            return (nil, path)
        }
        defer { close(found) }
        guard fstat(found, &status) == 0 else { throw SystemError(operation) }
        let kind = FileKind(mode: status.st_mode)
        guard kind == .file else { throw kind.refused(operation) }
        guard let text = realpath(path, nil) else { throw SystemError(operation) }
        defer { free(text) }
        return (status, String(cString: text))
    }

    /// Access control lists, labels and what people attached; those that the kernel refuses are of its own making.
    func copyAttributes(to descriptor: Int32) {
        var names = [CChar](repeating: 0, count: 65_536)
        let length = llistxattr(resolved, &names, names.count)
        guard length > 0 else { return }
        var value = [UInt8](repeating: 0, count: 65_536)
        for name in names.prefix(length).split(separator: 0) {
            let name = Array(name) + [0]
            let count = lgetxattr(resolved, name, &value, value.count)
            if count >= 0 { _ = fsetxattr(descriptor, name, value, count, 0) }
        }
    }
}
