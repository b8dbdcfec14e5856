import Glibc

/// Follows what paths lead to: a file that is written, replaced by renaming another over it, or reached by symbolic links, any of which may
/// come, go or point elsewhere.
///
/// Directories are watched, since a rename changes nothing in the file that was there; and files themselves, since one that is mounted over
/// another (in containers and network namespaces) is in a directory that nobody names.
public final class PathWatch {
    /// Writers do several things one after the other; they are told as one change.
    static let settleTime = Duration.milliseconds(50)
    /// Between two checks where the kernel has no watches left (fs.inotify.max_user_instances).
    static let pollInterval = Duration.seconds(5)
    /// Links followed from one path; Linux itself follows 40.
    static let linksMax = 8

    private let loop: EventLoop
    private let paths: [String]
    private let changed: () -> Void
    private var descriptor: Int32 = -1
    private var watches: Set<Int32> = []
    private var timer: TimerID?

    /// - Parameter changed: something may have changed; called in the loop's thread, to compare for itself.
    public init(loop: EventLoop, paths: [String], changed: @escaping () -> Void) {
        self.loop = loop
        self.paths = paths
        self.changed = changed
        descriptor = inotify_init1(Int32(IN_NONBLOCK | IN_CLOEXEC))
        if descriptor >= 0, (try? loop.watch(descriptor) { [unowned self] in drain() }) == nil {
            close(descriptor)
            descriptor = -1
        }
        if descriptor < 0 { poll() } else { arm() }
    }

    deinit { stop() }

    public func stop() {
        if let timer { loop.cancel(timer) }
        timer = nil
        guard descriptor >= 0 else { return }
        loop.unwatch(descriptor)
        close(descriptor)
        descriptor = -1
    }

    private func drain() {
        var buffer = [UInt8](repeating: 0, count: 8192)
        while read(descriptor, &buffer, buffer.count) > 0 {}
        guard timer == nil else { return }
        timer = loop.schedule(after: Self.settleTime) { [weak self] in
            guard let self else { return }
            timer = nil
            // Watched before it is looked at, so that nothing falls in between.
            arm()
            changed()
        }
    }

    private func poll() {
        timer = loop.schedule(after: Self.pollInterval) { [weak self] in
            self?.changed()
            self?.poll()
        }
    }

    // MARK: What to watch

    private func arm() {
        var wanted: Set<Int32> = []
        for path in paths {
            for place in Self.places(on: path) {
                let watch = inotify_add_watch(descriptor, place, Self.events)
                if watch >= 0 { wanted.insert(watch) }
            }
        }
        for old in watches.subtracting(wanted) { inotify_rm_watch(descriptor, old) }
        watches = wanted
    }

    private static let events = UInt32(
        IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF)

    /// The directory of the path and of each link on the way, or the nearest above it that exists; and the file at the end.
    static func places(on path: String) -> [String] {
        var places: [String] = []
        var next = path
        for _ in 0...linksMax {
            places.append(existing(directory(of: next)))
            guard let target = target(of: next) else { break }
            next = target.hasPrefix("/") ? target : directory(of: next) + "/" + target
        }
        if access(next, F_OK) == 0 { places.append(next) }
        return places
    }

    private static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return "/" }
        return String(path[..<slash])
    }

    private static func existing(_ directory: String) -> String {
        var candidate = directory
        while candidate != "/", access(candidate, F_OK) != 0 { candidate = self.directory(of: candidate) }
        return candidate
    }

    /// Where a symbolic link points; `nil` for anything else.
    private static func target(of path: String) -> String? {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink(path, &buffer, buffer.count - 1)
        guard count > 0 else { return nil }
        return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
