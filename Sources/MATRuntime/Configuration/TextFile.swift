import CLinux
import Glibc

/// Small text files: keys, certificates, state.
public enum TextFile {
    /// Reads a whole file.
    ///
    /// - Throws: with EFBIG if it is longer than `octetsMax`, which a file of this kind is only by mistake.
    public static func read(_ path: String, octetsMax: Int = 65_536) throws(SystemError) -> String {
        let descriptor = mat_open(path, O_RDONLY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw SystemError("open \(path)") }
        defer { close(descriptor) }
        var octets: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw SystemError("read \(path)")
            }
            if count == 0 { return String(decoding: octets, as: UTF8.self) }
            octets += buffer.prefix(count)
            guard octets.count <= octetsMax else { throw SystemError("read \(path)", errno: EFBIG) }
        }
    }

    /// Replaces a file whole and durably: written beside it, synced, renamed over it.
    public static func replace(_ path: String, with text: String, mode: mode_t) throws(SystemError) {
        let temporary = path + ".new"
        let descriptor = mat_open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw SystemError("create \(temporary)") }
        giveToDirectorysOwner(descriptor, path)
        do throws(SystemError) {
            try write(Array(text.utf8), to: descriptor, temporary)
            guard fsync(descriptor) == 0 else { throw SystemError("sync \(temporary)") }
        } catch {
            close(descriptor)
            unlink(temporary)
            throw error
        }
        close(descriptor)
        guard rename(temporary, path) == 0 else { throw SystemError("rename \(temporary) to \(path)") }
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

    private static func write(_ octets: [UInt8], to descriptor: Int32, _ path: String) throws(SystemError) {
        var rest = octets[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                throw SystemError("write \(path)")
            }
            rest = rest.dropFirst(count)
        }
    }
}
