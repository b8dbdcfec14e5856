import CLinux
import Glibc

/// A control group (cgroup v2) whose processes' sockets are marked when they are made: a directory in the kernel's file system of such groups, with
/// our program tied to it.
///
/// Directory and program live on without this process, and end together when the directory is removed, which the kernel refuses while a process is in
/// it. What a process starts is in its group too, whoever it becomes (set-user-ID programs, shells) and however it is linked.
package struct ControlGroup: Hashable, Sendable {
    /// The directory's path.
    package let path: String

    package init(path: String) { self.path = path }

    /// Makes the directory, unless it is there.
    package func make() throws(ProgramError) {
        guard mkdir(path, 0o755) == 0 || errno == EEXIST else { throw ProgramError("make the control group \(path)") }
    }

    /// Ties the program to it, unless that has been done before.
    ///
    /// - Parameters:
    ///   - mark: of the sockets.
    ///   - network: the cookie of the network namespace in which they are marked.
    package func tie(mark: UInt32, network: UInt64) throws(ProgramError) {
        let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw ProgramError("open the control group \(path)") }
        defer { close(directory) }
        if mat_bpf_count_in_group(directory) > 0 { return }
        let program = try Self.program(mark: mark, network: network)
        guard mat_bpf_attach_group(program.descriptor, directory) == 0 else {
            throw ProgramError("tie \(program.name) to the control group \(path)")
        }
    }

    private static func program(mark: UInt32, network: UInt64) throws(ProgramError) -> KernelProgram {
        let marking = try KernelMap(KernelMap.Shape(.array, "marking", keyOctets: 4, valueOctets: 16, entriesMax: 1))
        func native<T: FixedWidthInteger>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }
        try marking.set(native(UInt32(0)), native(network) + native(mark) + native(UInt32(0)))
        return try KernelProgram(MarksPrograms.mark, maps: ["marking": marking], kind: .sockets)
    }

    /// Takes a process in, with all its threads.
    package func take(_ process: Int32) throws(ProgramError) {
        let file = open("\(path)/cgroup.procs", O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { throw ProgramError("put process \(process) into the control group \(path)") }
        defer { close(file) }
        let text = Array("\(process)".utf8)
        guard write(file, text, text.count) == text.count else { throw ProgramError("put process \(process) into the control group \(path)") }
    }

    /// The processes in it and in groups that they have made within, sorted.
    package var processes: [Int32] {
        let own = Self.text(of: "\(path)/cgroup.procs").split(separator: "\n").compactMap { Int32($0) }
        return Set(own + within.flatMap(\.processes)).sorted()
    }

    /// Whether a process is in it or within.
    package var isUsed: Bool { Self.text(of: "\(path)/cgroup.events").split(separator: "\n").contains("populated 1") }

    package var exists: Bool { access(path, F_OK) == 0 }

    /// Whether it is the user's that this process runs as. Others are their users' to fill and to name as they like (systemd delegates them so).
    package var isOwn: Bool {
        var information = stat()
        return stat(path, &information) == 0 && information.st_uid == geteuid()
    }

    /// The groups in it.
    package var within: [ControlGroup] {
        guard let directory = opendir(path) else { return [] }
        defer { closedir(directory) }
        var result: [ControlGroup] = []
        while let entry = readdir(directory) {
            guard entry.pointee.d_type == UInt8(DT_DIR) else { continue }
            let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if name != ".", name != ".." { result.append(ControlGroup(path: "\(path)/\(name)")) }
        }
        return result.sorted { $0.path < $1.path }
    }

    /// Takes the directory away, with those within, and our program with it.
    /// - Returns: whether it is gone; `false` while a process is in it.
    @discardableResult
    package func remove() -> Bool {
        for group in within where !group.remove() { return false }
        return rmdir(path) == 0 || errno == ENOENT
    }

    private static func text(of path: String) -> String {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return "" }
        defer { close(file) }
        var text: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 16_384)
        while true {
            let count = read(file, &part, part.count)
            guard count > 0 else { return String(decoding: text, as: UTF8.self) }
            text += part.prefix(count)
        }
    }
}
