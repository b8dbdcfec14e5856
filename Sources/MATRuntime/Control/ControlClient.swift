import Glibc
import MATSignal

/// Asks a daemon over its control socket; for the command line, so it blocks, with a bound.
public enum ControlClient {
    /// The longest response line taken.
    static let responseBytesMax = 64 << 20

    private struct Request<Arguments: Encodable>: Encodable {
        let command: String
        let arguments: Arguments
    }

    /// Sends one request and waits for its answer.
    ///
    /// - Parameters:
    ///   - type: what the command's result is decoded as.
    ///   - daemon: the program behind the socket, for messages; by default the name of the socket's directory.
    ///   - timeout: for the whole exchange.
    /// - Throws: why there is no result, in words for the user: the daemon isn't running, the user may not ask, the daemon
    ///   refused, or took too long.
    public static func request<Result: Decodable, Arguments: Encodable>(
        _ type: Result.Type, path: String, command: String, arguments: Arguments = [String: JSONValue](), timeout: Duration = .seconds(5),
        daemon: String? = nil
    ) throws(ControlError) -> Result {
        let daemon = daemon ?? path.split(separator: "/").dropLast().last.map(String.init) ?? "the daemon"
        let request = try ControlJSON.encode(Request(command: command, arguments: arguments))
        let line: [UInt8]
        do throws(ControlError) {
            line = try exchange(request, path, daemon, SystemClock.now().monotonic + timeout)
        } catch {
            throw ControlError(error.description, isUnreachable: true)
        }
        let answer: ControlAnswer<Result>
        do throws(ControlError) {
            answer = try ControlJSON.decode(ControlAnswer<Result>.self, from: line)
        } catch {
            throw ControlError("\(daemon)'s answer to \(command) can't be read: \(error); are mat and \(daemon) of one version?")
        }
        guard answer.ok else {
            throw ControlError(answer.error ?? "\(daemon) refused \(command) and gave no reason; see journalctl -u \(daemon)")
        }
        guard let result = answer.result else {
            throw ControlError("\(daemon)'s answer to \(command) holds no result; are mat and \(daemon) of one version?")
        }
        return result
    }

    /// Asks for something that lasts as long as the connection, which stays open as long as the session lives.
    public static func hold<Result: Decodable, Arguments: Encodable>(
        _ type: Result.Type, path: String, command: String, arguments: Arguments, timeout: Duration = .seconds(30), daemon: String
    ) throws(ControlError) -> (result: Result, session: ControlSession) {
        let request = try ControlJSON.encode(Request(command: command, arguments: arguments))
        let deadline = SystemClock.now().monotonic + timeout
        let session = ControlSession(descriptor: try connect(path, daemon, deadline))
        try send(request + [10], session.descriptor, daemon, deadline)
        let answer = try ControlJSON.decode(ControlAnswer<Result>.self, from: try receiveLine(session.descriptor, daemon, deadline))
        guard answer.ok, let result = answer.result else {
            throw ControlError(answer.error ?? "\(daemon) refused \(command) and gave no reason; see journalctl -u \(daemon)")
        }
        return (result, session)
    }

    private static func exchange(_ line: [UInt8], _ path: String, _ daemon: String, _ deadline: MonotonicTime) throws(ControlError) -> [UInt8] {
        let descriptor = try connect(path, daemon, deadline)
        defer { close(descriptor) }
        try send(line + [10], descriptor, daemon, deadline)
        return try receiveLine(descriptor, daemon, deadline)
    }

    private static func connect(_ path: String, _ daemon: String, _ deadline: MonotonicTime) throws(ControlError) -> Int32 {
        let descriptor = try UnixSocket.make()
        do throws(ControlError) {
            while true {
                switch try UnixSocket.connect(descriptor, to: path) {
                case 0:
                    return descriptor
                case EAGAIN, EINTR:
                    // The daemon's queue of connections is full; there is nothing to poll for.
                    guard SystemClock.now().monotonic < deadline else {
                        throw ControlError("\(daemon) doesn't accept connections; is it stuck?")
                    }
                    usleep(10_000)
                case ENOENT, ENOTDIR:
                    throw ControlError("\(daemon) isn't running (no socket at \(path)); start it with systemctl start \(daemon)")
                case ECONNREFUSED:
                    throw ControlError(
                        "\(daemon) isn't running (nobody serves the socket at \(path)); start it with systemctl start \(daemon)")
                case EACCES, EPERM:
                    throw ControlError("permission denied at \(path): run as root, or \(groupRemedy(of: path, daemon))")
                case let number:
                    throw ControlError("can't reach \(daemon) at \(path): \(UnixSocket.reason(number))")
                }
            }
        } catch {
            close(descriptor)
            throw error
        }
    }

    /// How a user gets access without being root: through the group the socket belongs to, unless that is root's own.
    private static func groupRemedy(of path: String, _ daemon: String) -> String {
        let configure = "set control-group in \(daemon)'s configuration to a group of yours"
        var status = stat()
        guard lstat(path, &status) == 0, status.st_gid != 0 else { return configure }
        var entry = group()
        var found: UnsafeMutablePointer<group>?
        var buffer = [CChar](repeating: 0, count: 65536)
        guard getgrgid_r(status.st_gid, &entry, &buffer, buffer.count, &found) == 0, found != nil, let name = entry.gr_name else {
            return configure
        }
        return "join group \(String(cString: name))"
    }

    private static func send(_ bytes: [UInt8], _ descriptor: Int32, _ daemon: String, _ deadline: MonotonicTime)
        throws(ControlError)
    {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            if count >= 0 {
                rest = rest.dropFirst(count)
            } else if errno == EAGAIN {
                try wait(descriptor, POLLOUT, daemon, deadline)
            } else if errno != EINTR {
                throw ControlError("\(daemon) closed the connection: \(UnixSocket.reason())")
            }
        }
    }

    private static func receiveLine(_ descriptor: Int32, _ daemon: String, _ deadline: MonotonicTime) throws(ControlError)
        -> [UInt8]
    {
        var line = [UInt8]()
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count > 0 {
                if let end = chunk[..<count].firstIndex(of: 10) { return line + chunk[..<end] }
                line += chunk[..<count]
                guard line.count <= responseBytesMax else {
                    throw ControlError("\(daemon)'s answer is longer than \(responseBytesMax) octets; ask for less")
                }
            } else if count == 0 {
                throw ControlError("\(daemon) closed the connection without an answer; see journalctl -u \(daemon)")
            } else if errno == EAGAIN {
                try wait(descriptor, POLLIN, daemon, deadline)
            } else if errno != EINTR {
                throw ControlError("can't read \(daemon)'s answer: \(UnixSocket.reason())")
            }
        }
    }

    private static func wait(_ descriptor: Int32, _ events: Int32, _ daemon: String, _ deadline: MonotonicTime)
        throws(ControlError)
    {
        let left = (deadline - SystemClock.now().monotonic).millisecondsSaturated
        guard left > 0 else { throw ControlError("\(daemon) didn't answer in time") }
        var entry = pollfd(fd: descriptor, events: Int16(truncatingIfNeeded: events), revents: 0)
        _ = poll(&entry, 1, Int32(clamping: left + 1))
    }
}

/// A connection to a daemon that is kept: what was asked for over it ends with it.
public final class ControlSession {
    /// Readable when the daemon has closed it.
    package let descriptor: Int32

    init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    /// Lets programs that this one becomes (`execve`) go on with it.
    public func outliveExecution() { _ = fcntl(descriptor, F_SETFD, 0) }
}
