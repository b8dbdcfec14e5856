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
        let line = try exchange(request, path, Asked(daemon, timeout))
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
        let asked = Asked(daemon, timeout)
        let session = ControlSession(descriptor: try connect(path, asked))
        try send(request + [10], session.descriptor, asked)
        let answer = try ControlJSON.decode(ControlAnswer<Result>.self, from: try receiveLine(session.descriptor, asked))
        guard answer.ok, let result = answer.result else {
            throw ControlError(answer.error ?? "\(daemon) refused \(command) and gave no reason; see journalctl -u \(daemon)")
        }
        return (result, session)
    }

    /// Who is asked, and until when.
    private struct Asked {
        let daemon: String
        let timeout: Duration
        let deadline: MonotonicTime

        init(_ daemon: String, _ timeout: Duration) {
            self.daemon = daemon
            self.timeout = timeout
            deadline = SystemClock.now().monotonic + timeout
        }

        var seconds: String {
            let milliseconds = timeout.millisecondsSaturated
            return milliseconds % 1000 == 0 ? "\(milliseconds / 1000)" : "\(Double(milliseconds) / 1000)"
        }
    }

    private static func exchange(_ line: [UInt8], _ path: String, _ asked: Asked) throws(ControlError) -> [UInt8] {
        let descriptor = try connect(path, asked)
        defer { close(descriptor) }
        try send(line + [10], descriptor, asked)
        return try receiveLine(descriptor, asked)
    }

    private static func connect(_ path: String, _ asked: Asked) throws(ControlError) -> Int32 {
        let daemon = asked.daemon
        let descriptor = try UnixSocket.make()
        do throws(ControlError) {
            while true {
                switch try UnixSocket.connect(descriptor, to: path) {
                case 0:
                    return descriptor
                case EAGAIN, EINTR:
                    // The daemon's queue of connections is full; there is nothing to poll for.
                    guard SystemClock.now().monotonic < asked.deadline else {
                        throw ControlError("\(daemon) doesn't accept connections; is it stuck?", cause: .absent)
                    }
                    usleep(10_000)
                case ENOENT, ENOTDIR:
                    throw ControlError("\(daemon) isn't running (no socket at \(path)); start it with systemctl start \(daemon)", cause: .absent)
                case ECONNREFUSED:
                    throw ControlError(
                        "\(daemon) isn't running (nobody serves the socket at \(path)); start it with systemctl start \(daemon)",
                        cause: .absent)
                case EACCES, EPERM:
                    throw ControlError(forbidden(path, daemon), cause: .forbidden)
                case let number:
                    throw ControlError("can't reach \(daemon) at \(path): \(UnixSocket.reason(number))", cause: .absent)
                }
            }
        } catch {
            close(descriptor)
            throw error
        }
    }

    /// What it is that this user may not, and how it may: as root, or through the group that the socket belongs to, unless that is root's own.
    private static func forbidden(_ path: String, _ daemon: String) -> String {
        let user = UserName.of(geteuid())
        var status = stat()
        guard lstat(path, &status) == 0 else {
            return
                "permission denied: whether \(daemon) runs is not to be seen, since the user \(user) has no access to the folder of its socket (\(path)); use sudo"
        }
        let socket = "permission denied: \(daemon)'s socket is there (\(path)), but the user \(user) has no access to it; use sudo, or "
        guard status.st_gid != 0, let group = UserName.ofGroup(status.st_gid) else {
            return socket + "name a group of the user \(user) as control-group in \(daemon)'s configuration"
        }
        return socket + "have root add the user \(user) to the group \(group) (usermod -aG \(group) \(user)), and log in anew"
    }

    private static func send(_ bytes: [UInt8], _ descriptor: Int32, _ asked: Asked) throws(ControlError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            if count >= 0 {
                rest = rest.dropFirst(count)
            } else if errno == EAGAIN {
                try wait(descriptor, POLLOUT, asked)
            } else if errno != EINTR {
                throw ControlError("\(asked.daemon) closed the connection: \(UnixSocket.reason())", cause: .absent)
            }
        }
    }

    private static func receiveLine(_ descriptor: Int32, _ asked: Asked) throws(ControlError) -> [UInt8] {
        let daemon = asked.daemon
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
                throw ControlError("\(daemon) closed the connection without an answer; see journalctl -u \(daemon)", cause: .unanswered)
            } else if errno == EAGAIN {
                try wait(descriptor, POLLIN, asked)
            } else if errno != EINTR {
                throw ControlError("can't read \(daemon)'s answer: \(UnixSocket.reason())", cause: .unanswered)
            }
        }
    }

    private static func wait(_ descriptor: Int32, _ events: Int32, _ asked: Asked) throws(ControlError) {
        let left = (asked.deadline - SystemClock.now().monotonic).millisecondsSaturated
        guard left > 0 else { throw ControlError("\(asked.daemon) was asked, and gave no answer within \(asked.seconds) s", cause: .unanswered) }
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
