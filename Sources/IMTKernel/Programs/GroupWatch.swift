import Glibc
import MATRuntime

/// Tells when the processes of a control group may have changed. The kernel says so of the group's file `cgroup.events`, once they come or are all gone.
final class GroupWatch {
    private let loop: EventLoop
    private let descriptor: Int32
    private var watched: [Int32: String] = [:]
    private let changed: (String) -> Void

    /// - Parameter changed: with the group's directory; called in the loop's thread, to look for itself.
    init(loop: EventLoop, changed: @escaping (String) -> Void) throws(SystemError) {
        self.loop = loop
        self.changed = changed
        descriptor = inotify_init1(Int32(IN_NONBLOCK | IN_CLOEXEC))
        guard descriptor >= 0 else { throw SystemError("inotify_init1") }
        do throws(SystemError) {
            try loop.watch(descriptor) { [unowned self] in drain() }
        } catch {
            close(descriptor)
            throw error
        }
    }

    deinit {
        loop.unwatch(descriptor)
        close(descriptor)
    }

    func add(_ directory: String) throws(SystemError) {
        let number = inotify_add_watch(descriptor, "\(directory)/cgroup.events", UInt32(IN_MODIFY))
        guard number >= 0 else { throw SystemError("watch \(directory)/cgroup.events") }
        watched[number] = directory
    }

    func remove(_ directory: String) {
        for (number, known) in watched where known == directory {
            watched[number] = nil
            inotify_rm_watch(descriptor, number)
        }
    }

    private func drain() {
        // struct inotify_event: watch 4, mask 4, cookie 4, length of the name 4, name.
        var buffer = [UInt8](repeating: 0, count: 4096)
        var numbers: Set<Int32> = []
        var isLost = false
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            guard count > 0 else { break }
            buffer.withUnsafeBytes { raw in
                var place = 0
                while place + 16 <= count {
                    let number = raw.loadUnaligned(fromByteOffset: place, as: Int32.self)
                    if number < 0 { isLost = true } else { numbers.insert(number) }
                    place += 16 + Int(raw.loadUnaligned(fromByteOffset: place + 12, as: UInt32.self))
                }
            }
        }
        let directories = isLost ? Array(watched.values) : numbers.compactMap { watched[$0] }
        for directory in directories.sorted() { changed(directory) }
    }
}
