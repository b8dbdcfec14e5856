import Glibc

extension MappingStore {
    /// Why what is at a path is no store, with the path; `nil` if it is, or nothing is there. The first 16 octets of a database say so (sqlite.org/fileformat.html).
    static func objection(to path: String) -> String? {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        if status.st_mode & S_IFMT == S_IFDIR { return "store: \(path) is a directory; write the name of a file in it, such as \(path)/ims.db" }
        guard status.st_mode & S_IFMT == S_IFREG else { return "store: \(path) is no file; write the name of one, such as /var/lib/imsd/ims.db" }
        // SQLite makes the file empty, and writes to it later.
        guard status.st_size > 0 else { return nil }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { Glibc.close(descriptor) }
        var head = [UInt8](repeating: 0, count: 16)
        let count = read(descriptor, &head, head.count)
        // What a disk refuses to give says nothing of what it is.
        guard count >= 0 else { return nil }
        return count == head.count && head == Array("SQLite format 3\0".utf8) ? nil : notOurs(path)
    }

    static func notOurs(_ path: String) -> String {
        "store: \(path) is no store of imsd's; move it away to begin with an empty one, or put a copy of the right one there"
    }
}
