import Glibc
import MATLab
import Namespaces

/// A socket that lives on one of the lab's hosts and is used from here.
final class LabSocket: Sendable {
    struct Refusal: Error { var number: Int32 }

    private let descriptor: Int32
    private let isIPv4: Bool
    let isStream: Bool

    init(_ lab: Lab, _ host: String, _ type: __socket_type, isIPv4: Bool) throws {
        self.isIPv4 = isIPv4
        isStream = type == SOCK_STREAM
        descriptor = try Namespace.inside(lab.namespace(host)) {
            socket(isIPv4 ? AF_INET : AF_INET6, Int32(type.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        }
        guard descriptor >= 0 else { throw Self.failed("a socket on \(host)") }
        var yes: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, 4)
        if isStream { setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, 4) }
    }

    private init(adopting descriptor: Int32, isIPv4: Bool) {
        self.descriptor = descriptor
        self.isIPv4 = isIPv4
        isStream = true
        var yes: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, 4)
    }

    deinit { close(descriptor) }

    private static func failed(_ what: String) -> LabError { LabError("\(what): \(String(cString: strerror(errno)))") }

    private func withAddress<T>(_ text: String, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
        if isIPv4 {
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            inet_pton(AF_INET, text, &address.sin_addr)
            return withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
            }
        }
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = port.bigEndian
        inet_pton(AF_INET6, text, &address.sin6_addr)
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
        }
    }

    func bind(_ address: String, _ port: UInt16) throws {
        guard withAddress(address, port, { Glibc.bind(descriptor, $0, $1) }) == 0 else { throw Self.failed("bind to \(address) port \(port)") }
    }

    func listen() throws { guard Glibc.listen(descriptor, 8) == 0 else { throw Self.failed("listen") } }

    func connect(_ address: String, _ port: UInt16, within seconds: Double) throws {
        // A blocking connect waits as long as it may send.
        var time = timeval(tv_sec: Int(seconds), tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
        guard withAddress(address, port, { Glibc.connect(descriptor, $0, $1) }) == 0 else { throw Self.failed("connect to \(address) port \(port)") }
    }

    func accept(within seconds: Double) throws -> LabSocket {
        guard isReadable(withinMilliseconds: Int32(seconds * 1000)) else { throw LabError("nobody connected within \(seconds) s") }
        let accepted = Glibc.accept(descriptor, nil, nil)
        guard accepted >= 0 else { throw Self.failed("accept") }
        return LabSocket(adopting: accepted, isIPv4: isIPv4)
    }

    func isReadable(withinMilliseconds time: Int32) -> Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, time) > 0
    }

    /// From now on it talks to who sent the next datagram alone.
    func connectToSender(withinMilliseconds time: Int32) -> Bool {
        guard isReadable(withinMilliseconds: time) else { return false }
        var source = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        var octets = [UInt8](repeating: 0, count: 64)
        return withUnsafeMutablePointer(to: &source) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                recvfrom(descriptor, &octets, octets.count, 0, address, &length) >= 0 && Glibc.connect(descriptor, address, length) == 0
            }
        }
    }

    func setNonBlocking() { _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK) }

    func send(_ octets: [UInt8]) -> Result<Int, Refusal> {
        let count = octets.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        return count < 0 ? .failure(Refusal(number: errno)) : .success(count)
    }

    func receive() -> Result<[UInt8], Refusal> {
        var octets = [UInt8](repeating: 0, count: 4096)
        let count = recv(descriptor, &octets, octets.count, 0)
        return count < 0 ? .failure(Refusal(number: errno)) : .success(Array(octets.prefix(count)))
    }

    /// Until one of them can be read, or the time is over.
    static func wait(_ sockets: [LabSocket], nanoseconds: Int64) {
        var entries = sockets.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
        _ = poll(&entries, nfds_t(entries.count), Int32(clamping: (nanoseconds + 999_999) / 1_000_000))
    }
}
