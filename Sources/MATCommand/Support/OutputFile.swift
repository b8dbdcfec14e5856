import Glibc
import MATRuntime

/// Where a command puts what it was asked to write. A file has its name, or replaces another, when it is whole; a device or FIFO gets it as it comes,
/// and so does what this process was given open (`-`, /dev/stdout).
final class OutputFile {
    /// For messages.
    private let name: String
    private let replacement: FileReplacement?
    /// To write to.
    let descriptor: Int32
    private let isOwn: Bool

    /// - Parameter isFollowed: the file has its name at once, for who looks at it while it grows.
    init(_ path: String, _ permissions: FileReplacement.Permissions, isFollowed: Bool = false) throws(CommandFailure) {
        name = path == "-" ? "standard output" : path
        do throws(SystemError) {
            if let descriptor = try Self.straight(path) {
                (replacement, self.descriptor) = (nil, descriptor)
                isOwn = descriptor != STDOUT_FILENO
                return
            }
            let file = try FileReplacement(path, permissions)
            if isFollowed { try file.commit(isSynced: false) }
            (replacement, descriptor, isOwn) = (file, file.descriptor, false)
        } catch {
            throw CommandFailure("can't \(error)")
        }
    }

    deinit { if isOwn { close(descriptor) } }

    /// What is no file, and is written to all the same. Mass storage is not among it, which nobody means.
    private static func straight(_ path: String) throws(SystemError) -> Int32? {
        if path == "-" { return STDOUT_FILENO }
        let descriptor: Int32
        if let number = OwnDescriptor.number(of: path) {
            descriptor = fcntl(number, F_DUPFD_CLOEXEC, 3)
        } else {
            guard let kind = FileKind.of(path), kind == .pipe || kind == .characterDevice else { return nil }
            descriptor = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY)
        }
        guard descriptor >= 0 else { throw SystemError("write \(path)") }
        return descriptor
    }

    func write(_ octets: [UInt8]) throws(CommandFailure) {
        do throws(SystemError) {
            try FileReplacement.write(octets, to: descriptor, name)
        } catch {
            throw CommandFailure("can't \(error)")
        }
    }

    /// All is written.
    func finish() throws(CommandFailure) {
        do throws(SystemError) { try replacement?.commit() } catch { throw CommandFailure("can't \(error)") }
    }

    /// A file and all that it takes, at once.
    static func write(_ text: String, to path: String, _ permissions: FileReplacement.Permissions) throws(CommandFailure) {
        let file = try OutputFile(path, permissions)
        try file.write(Array(text.utf8))
        try file.finish()
    }
}
