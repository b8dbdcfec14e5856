import CLinux
import Glibc

/// Small text files: keys, certificates, state.
public enum TextFile {
    /// Reads a whole file.
    ///
    /// - Throws: with EFBIG if it is longer than `octetsMax`, which a file of this kind is only by mistake.
    public static func read(_ path: String, octetsMax: Int = 65_536) throws(SystemError) -> String {
        String(decoding: try octets(of: path, max: octetsMax), as: UTF8.self)
    }

    /// Likewise, as it is.
    public static func octets(of path: String, max octetsMax: Int = 65_536) throws(SystemError) -> [UInt8] {
        let descriptor = try open(path)
        defer { close(descriptor) }
        var octets: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw SystemError("read \(path)")
            }
            if count == 0 { return octets }
            octets += buffer.prefix(count)
            guard octets.count <= octetsMax else { throw SystemError("read \(path)", errno: EFBIG) }
        }
    }

    /// Opens a file to read it. What is no file is refused, before it is touched: nobody may ever write to a FIFO, a device may do something when it
    /// is opened. Only what this process was given open may be a pipe.
    public static func open(_ path: String) throws(SystemError) -> Int32 {
        let isOwn = OwnDescriptor.number(of: path) != nil
        if !isOwn, let kind = FileKind.of(path), kind != .file { throw kind.refused("read \(path)") }
        let descriptor = mat_open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (isOwn ? 0 : O_NONBLOCK), 0)
        guard descriptor >= 0 else { throw SystemError("open \(path)") }
        var status = stat()
        // It may have been replaced since.
        guard isOwn || fstat(descriptor, &status) == 0 && FileKind(mode: status.st_mode) == .file else {
            close(descriptor)
            throw FileKind(mode: status.st_mode).refused("read \(path)")
        }
        return descriptor
    }

    /// Replaces a file of this program's own: state, keys, certificates.
    public static func replace(_ path: String, with text: String, mode: mode_t) throws(SystemError) {
        try replace(path, with: text, .fixed(mode))
    }

    /// Replaces a file whole and durably.
    public static func replace(_ path: String, with text: String, _ permissions: FileReplacement.Permissions) throws(SystemError) {
        let file = try FileReplacement(path, permissions, givesToDirectorysOwner: true)
        try file.write(text.utf8)
        try file.commit()
    }

    /// Files that root makes in a daemon's directory become the daemon's: who ran it by hand must not keep it from its own state afterwards.
    public static func giveToDirectorysOwner(_ descriptor: Int32, _ path: String) {
        var status = stat()
        let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? "."
        guard geteuid() == 0, stat(directory, &status) == 0, status.st_uid != 0 else { return }
        fchown(descriptor, status.st_uid, status.st_gid)
    }

    /// The permission bits of a file.
    public static func mode(of path: String) throws(SystemError) -> mode_t {
        var status = stat()
        guard stat(path, &status) == 0 else { throw SystemError("look at \(path)") }
        return status.st_mode & 0o7777
    }
}
