import CLinux
import Glibc

/// A daemon's control socket: requests and responses as lines of JSON, served in the event loop.
///
/// Who may connect is decided by the socket's mode (0660) and group alone. A handler answers at once or later, from the
/// loop's thread; a client has one request in work at a time, further lines wait. Nothing a client does or fails to do
/// holds up the loop: input and output are bounded, and when all places are taken, the longest connected client without a request in work is
/// disconnected for a new one.
public final class ControlServer {
    /// Clients connected at a time: people and scripts, not load.
    public static let clientsMax = 32
    /// Beside these, clients that hold something (`hold`).
    public static let holdersMax = 256
    /// Accepted connections per turn of the loop.
    static let acceptsPerTurnMax = 8

    public typealias Handler = (ControlRequest, _ respond: @escaping (ControlResponse) -> Void) -> Void

    public let path: String
    private let loop: EventLoop
    private let handler: Handler
    private var listener: Int32 = -1
    private var inode: UInt64 = 0
    private var clients: [UInt64: ControlConnection] = [:]
    private var lastClient: UInt64 = 0
    /// A client that held something has gone.
    public var onClosed: (UInt64) -> Void = { _ in }

    /// Binds and listens. A socket left behind by a dead daemon is replaced; a living one is an error.
    ///
    /// - Parameter allowedGroup: members of this group may connect besides root.
    public init(loop: EventLoop, path: String, allowedGroup: String? = nil, handler: @escaping Handler) throws(ControlError) {
        self.loop = loop
        self.path = path
        self.handler = handler
        let group = try allowedGroup.map { name throws(ControlError) in try Self.group(name) }
        try Self.makeDirectory(of: path)
        try Self.removeStale(path)
        listener = try UnixSocket.make()
        do throws(ControlError) {
            try open(group)
        } catch {
            close(listener)
            listener = -1
            throw error
        }
    }

    deinit { stop() }

    /// Closes everything and removes the socket's file, unless another process has put its own there since.
    public func stop() {
        guard listener >= 0 else { return }
        loop.unwatch(listener)
        close(listener)
        listener = -1
        for client in clients.values { client.close() }
        clients = [:]
        var status = stat()
        if lstat(path, &status) == 0, UInt64(status.st_ino) == inode { unlink(path) }
    }

    // MARK: What clients hold

    /// A client has something that lasts as long as its connection: it is not disconnected for another one, and `onClosed` says when it has gone.
    ///
    /// - Returns: `false` if there are too many of them, or it has gone already.
    public func hold(_ connection: UInt64) -> Bool {
        guard let client = clients[connection] else { return false }
        guard client.isHeld || clients.values.count(where: \.isHeld) < Self.holdersMax else { return false }
        client.isHeld = true
        return true
    }

    /// It has nothing any more.
    public func release(_ connection: UInt64) { clients[connection]?.isHeld = false }

    private func closed(_ connection: UInt64) {
        if clients.removeValue(forKey: connection)?.isHeld == true { onClosed(connection) }
    }

    // MARK: Opening

    private func open(_ group: gid_t?) throws(ControlError) {
        let bound = try UnixSocket.withAddress(path) { bind(listener, $0, $1) == 0 ? 0 : errno }
        guard bound == 0 else { throw ControlError("can't create \(path): \(UnixSocket.reason(bound))") }
        // Nobody can connect before listen(), so there is no moment in which the wrong people could.
        var status = stat()
        guard chmod(path, 0o660) == 0, lstat(path, &status) == 0 else { throw failed("can't set the mode of \(path)") }
        if let group, chown(path, uid_t.max, group) != 0 { throw failed("can't give \(path) to its group") }
        inode = UInt64(status.st_ino)
        guard listen(listener, Int32(Self.clientsMax)) == 0 else { throw failed("can't listen at \(path)") }
        do {
            try loop.watch(listener) { [unowned self] in accept() }
        } catch {
            throw failed("can't watch \(path)")
        }
    }

    private func failed(_ what: String) -> ControlError {
        let error = ControlError("\(what): \(UnixSocket.reason())")
        unlink(path)
        return error
    }

    /// What `--check` of a daemon says of its `control-group` before it is needed.
    package static func checkGroup(_ name: String?) throws(ControlError) { if let name { _ = try group(name) } }

    private static func group(_ name: String) throws(ControlError) -> gid_t {
        var entry = Glibc.group()
        var found: UnsafeMutablePointer<Glibc.group>?
        var buffer = [CChar](repeating: 0, count: 65536)
        guard getgrnam_r(name, &entry, &buffer, buffer.count, &found) == 0, found != nil else {
            throw ControlError("there is no group \(name); create it with groupadd --system \(name) or name another")
        }
        return entry.gr_gid
    }

    /// Makes the last directory of the path: /run is empty after every boot, and not everybody starts daemons by systemd.
    private static func makeDirectory(of path: String) throws(ControlError) {
        guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else { return }
        let directory = String(path[..<slash])
        guard mkdir(directory, 0o755) == 0 else {
            guard errno == EEXIST else { throw ControlError("can't create the directory \(directory): \(UnixSocket.reason())") }
            return
        }
        // Whatever the umask: the group goes through it to the socket, which says itself who may.
        chmod(directory, 0o755)
    }

    private static func removeStale(_ path: String) throws(ControlError) {
        var status = stat()
        guard lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw ControlError("\(path) is in the way: it exists and is not a socket; remove it or name another path")
        }
        let probe = try UnixSocket.make()
        defer { close(probe) }
        switch try UnixSocket.connect(probe, to: path) {
        case ECONNREFUSED, ENOENT:
            guard unlink(path) == 0 || errno == ENOENT else {
                throw ControlError("can't remove the stale socket \(path): \(UnixSocket.reason())")
            }
        case 0, EAGAIN:
            throw ControlError("another process already serves \(path); stop it first")
        case let number:
            throw ControlError("can't tell whether \(path) is in use: \(UnixSocket.reason(number))")
        }
    }

    // MARK: Clients

    private func accept() {
        for _ in 0..<Self.acceptsPerTurnMax {
            // accept4 is hidden by Glibc's module; no thread of ours forks in between.
            let descriptor = Glibc.accept(listener, nil, nil)
            guard descriptor >= 0 else { return }
            var uid = uid_t.max
            guard fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0, fcntl(descriptor, F_SETFL, O_NONBLOCK) == 0,
                mat_peer_uid(descriptor, &uid) == 0, makeRoom()
            else {
                close(descriptor)
                continue
            }
            lastClient += 1
            let number = lastClient
            let client = ControlConnection(
                loop: loop, descriptor: descriptor, peerUID: uid, number: number, handler: handler,
                closed: { [unowned self] in closed(number) })
            if client.start() { clients[number] = client }
        }
    }

    /// Disconnects the longest connected client that isn't waiting for an answer, if all places are taken.
    ///
    /// - Returns: whether there is a place.
    private func makeRoom() -> Bool {
        let others = clients.filter { !$0.value.isHeld }
        guard others.count >= Self.clientsMax else { return true }
        guard let idle = others.filter({ $0.value.isIdle }).min(by: { $0.key < $1.key }) else { return false }
        idle.value.close()
        clients[idle.key] = nil
        return true
    }
}
