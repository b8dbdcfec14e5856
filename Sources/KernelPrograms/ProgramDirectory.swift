import CLinux
import Glibc

/// A directory in the kernel's file system of BPF objects: what is pinned there lives on without a process.
/// Names have no dots, which the kernel keeps for itself.
package struct ProgramDirectory: Sendable {
    /// Where systemd and most distributions mount it.
    package static let usual = "/sys/fs/bpf"

    package let path: String

    /// Makes the directory, and those above it, if they are not there.
    /// - Throws: that there is no such file system, or that it can't be written to.
    package init(_ path: String) throws(ProgramError) {
        self.path = path
        var made = ""
        for part in path.split(separator: "/") {
            made += "/" + part
            // EEXIST and, of those above the mount, EROFS are no matter: what counts is where it ends.
            mkdir(made, 0o700)
        }
        guard mat_is_bpf_file_system(path) != 0 else {
            throw ProgramError("use \(path): it is not in a file system of type bpf (mount -t bpf bpf \(Self.usual))", errno: 0)
        }
    }

    package func path(of name: String) -> String { "\(path)/\(name)" }

    /// What is pinned here, sorted.
    package var names: [String] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var result: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if name != ".", name != ".." { result.append(name) }
        }
        return result.sorted()
    }

    /// Ends the pin; the object goes with its last user.
    package func remove(_ name: String) { unlink(path(of: name)) }

    /// Takes the directory away with all that is pinned in it; those above it stay.
    package func removeAll() {
        for name in names { remove(name) }
        rmdir(path)
    }

    /// The network namespace that this thread is in, by the number that the kernel knows it by; 0 if it does not say.
    package static var networkNamespace: UInt64 {
        var information = stat()
        return stat("/proc/thread-self/ns/net", &information) == 0 ? UInt64(information.st_ino) : 0
    }
}
