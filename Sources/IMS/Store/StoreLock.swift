import CLinux
import Glibc

import enum MATRuntime.TextFile

/// Says that a store is one process's: two servers on one file would each know half of what the nodes told.
///
/// A file of its own beside the store's, because SQLite has POSIX locks on the store's, which go with whichever descriptor of it a process
/// closes first (and over NFS the two kinds are one). It stays when the process ends; what counts is the kernel's lock on it, which is gone
/// at that moment, however it ends. Who reads a running server's store (sqlite3, a backup) asks for no such lock.
final class StoreLock {
    /// How long a start waits for a server that is just ending.
    static let patience = 1000
    private static let pause = 50

    private let descriptor: Int32

    static func path(of store: String) -> String {
        // By whatever name it is called.
        guard let resolved = realpath(store, nil) else { return store + ".lock" }
        defer { free(resolved) }
        return String(cString: resolved) + ".lock"
    }

    /// - Parameter milliseconds: how long to wait for who has it.
    /// - Throws: `inUse` if another has it; or that the file can't be made, which may pass.
    init(store: String, waiting milliseconds: Int = patience) throws(StoreError) {
        let path = Self.path(of: store)
        descriptor = try Self.open(path, store)
        var left = milliseconds
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            let reason = errno
            if reason == EINTR { continue }
            guard reason == EWOULDBLOCK, left > 0 else {
                let holder = reason == EWOULDBLOCK ? Self.holder(descriptor) : nil
                Glibc.close(descriptor)
                guard reason != EWOULDBLOCK else { throw .inUse(store, holder) }
                let text = String(cString: strerror(reason))
                throw StoreError("the store \(store): \(path) can't be locked: \(text); put the store on another file system", kind: .unusable)
            }
            usleep(UInt32(Self.pause * 1000))
            left -= Self.pause
        }
        // For who comes next. A disk that is full holds no number.
        ftruncate(descriptor, 0)
        let text = Array("\(getpid())\n".utf8)
        _ = pwrite(descriptor, text, text.count, 0)
    }

    deinit {
        ftruncate(descriptor, 0)
        Glibc.close(descriptor)
    }

    private static func open(_ path: String, _ store: String) throws(StoreError) -> Int32 {
        // Not made where it is: in a directory with the sticky bit the kernel refuses to "make" a file of another.
        let found = mat_open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0)
        if found >= 0 { return found }
        if errno == ENOENT {
            let made = mat_open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
            if made >= 0 {
                TextFile.giveToDirectorysOwner(made, path)
                return made
            }
        }
        let reason = errno
        let text = "the store \(store): \(path) can't be made: \(String(cString: strerror(reason)))"
        switch reason {
        case ENOENT, ENOTDIR: throw StoreError("\(text); make its directory, and give it to the user that imsd runs as", kind: .unusable)
        case ENOSPC, EDQUOT: throw StoreError("\(text); the disk is full; make room")
        case EACCES, EPERM:
            // Where the store is ours, what can be read of it is served.
            throw StoreError(
                "\(text); give it and its directory to the user that imsd runs as", kind: access(store, R_OK | W_OK) == 0 ? .passing : .unusable)
        default: throw StoreError("\(text); see df and dmesg")
        }
    }

    /// The process that has the lock, as it said itself.
    private static func holder(_ descriptor: Int32) -> Int32? {
        var octets = [UInt8](repeating: 0, count: 16)
        let count = pread(descriptor, &octets, octets.count, 0)
        guard count > 0, let end = octets.prefix(count).firstIndex(of: 0x0A) else { return nil }
        return Int32(String(decoding: octets[..<end], as: UTF8.self)).flatMap { $0 > 0 ? $0 : nil }
    }
}

extension StoreError {
    static func inUse(_ store: String, _ process: Int32?) -> StoreError {
        StoreError(
            "store: \(store) is in use by another imsd\(process.map { ", process \($0)" } ?? ""); stop that one, or give this one a store of its own",
            kind: .unusable)
    }
}
