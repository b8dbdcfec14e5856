import CLinux
import Glibc
import IMTPlan

/// A process that somebody else may end at any time, and its number then be another's.
public final class ProcessHandle {
    public let number: Int32
    private let descriptor: Int32

    /// - Parameter descriptor: one that stands for the process (pidfd), owned by this value from now on; without it one is opened.
    /// - Returns: `nil` if there is no such process.
    public init?(_ number: Int32, descriptor: Int32? = nil) {
        let opened = descriptor ?? mat_open_process(number)
        guard number > 0, opened >= 0 else {
            if opened >= 0 { close(opened) }
            return nil
        }
        self.number = number
        self.descriptor = opened
    }

    deinit { close(descriptor) }

    /// Whether it is still there: then its number was its own all the time.
    public var isAlive: Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, 0) == 0
    }

    /// Whose it is; `nil` if that can't be read.
    var owner: ProcessOwner? { ProcessOwner(status: Self.text("/proc/\(number)/status")) }

    /// Whether that user may say where its sockets start from.
    public func maySteer(_ user: UInt32) -> Bool { owner?.maySteer(user) ?? false }

    /// The control group of version 2 that it is in.
    var group: String? { GroupPlace.path(Self.text("/proc/\(number)/cgroup")) }

    /// A process's command line, cut off somewhere, and whose it is (the effective user); `nil` if it has ended.
    public static func description(of process: Int32) -> (command: String, user: UInt32)? {
        guard let owner = ProcessOwner(status: text("/proc/\(process)/status")) else { return nil }
        let arguments = text("/proc/\(process)/cmdline", octetsMax: commandOctetsMax).split(separator: "\0").joined(separator: " ")
        // Of a process that has given its arguments up there is the name still.
        let name = text("/proc/\(process)/comm").split(separator: "\n").first.map(String.init) ?? "?"
        return (arguments.isEmpty ? name : arguments, owner.effective)
    }

    /// Read of a command line, which may have megabytes.
    private static let commandOctetsMax = 1024

    /// The contents of a file of /proc, or what they begin with; empty if it can't be read.
    package static func text(_ path: String, octetsMax: Int = .max) -> String {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return "" }
        defer { close(file) }
        var text: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 65_536)
        while text.count < octetsMax {
            let count = read(file, &part, min(part.count, octetsMax - text.count))
            guard count > 0 else { break }
            text += part.prefix(count)
        }
        return String(decoding: text, as: UTF8.self)
    }
}
