import Glibc
import MATRuntime
import MATSignal
import Namespaces

/// A blocking socket with deadlines, made in a namespace and usable from any thread.
final class TestSocket: @unchecked Sendable {
    let descriptor: Int32

    init(_ namespace: Namespace, type: Int32, isIPv4: Bool, protocolNumber: Int32 = 0) throws {
        descriptor = try namespace.inside { socket(isIPv4 ? AF_INET : AF_INET6, type, protocolNumber) }
        guard descriptor >= 0 else { throw ShellError("socket: \(errno)") }
        setTimeout(seconds: 5)
    }

    private init(adopting descriptor: Int32) {
        self.descriptor = descriptor
        setTimeout(seconds: 5)
    }

    deinit { close(descriptor) }

    static let stream = Int32(SOCK_STREAM.rawValue)
    static let datagram = Int32(SOCK_DGRAM.rawValue)
    static let raw = Int32(SOCK_RAW.rawValue)

    func setTimeout(seconds: Double) {
        var value = timeval(tv_sec: Int(seconds), tv_usec: Int((seconds - seconds.rounded(.down)) * 1e6))
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &value, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &value, socklen_t(MemoryLayout<timeval>.size))
    }

    func mark(_ value: UInt32) {
        var value = value
        setsockopt(descriptor, SOL_SOCKET, SO_MARK, &value, 4)
    }

    func set(_ level: Int32, _ name: Int32, octets: [UInt8]) throws {
        guard setsockopt(descriptor, level, name, octets, socklen_t(octets.count)) == 0 else { throw failed("option \(name)") }
    }

    func set(_ level: Int32, _ name: Int32, _ value: Int32) throws {
        try set(level, name, octets: withUnsafeBytes(of: value) { Array($0) })
    }

    func get(_ level: Int32, _ name: Int32) throws -> Int32 {
        var value: Int32 = 0
        var length = socklen_t(4)
        guard getsockopt(descriptor, level, name, &value, &length) == 0 else { throw failed("option \(name)") }
        return value
    }

    private func withAddress<T>(_ endpoint: Endpoint, _ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
        if let v4 = endpoint.address.ipv4 {
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = endpoint.port.bigEndian
            address.sin_addr.s_addr = v4.bigEndian
            return withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
            }
        }
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = endpoint.port.bigEndian
        address.sin6_addr = endpoint.address.in6
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
        }
    }

    func bind(_ address: IPAddress, port: UInt16) throws {
        var one: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, 4)
        guard withAddress(Endpoint(address, port: port), { Glibc.bind(descriptor, $0, $1) }) == 0 else { throw failed("bind") }
    }

    func listen() throws {
        guard Glibc.listen(descriptor, 8) == 0 else { throw failed("listen") }
    }

    func connect(_ address: IPAddress, port: UInt16) throws {
        guard withAddress(Endpoint(address, port: port), { Glibc.connect(descriptor, $0, $1) }) == 0 else {
            throw failed("connect")
        }
    }

    func accept() throws -> TestSocket {
        let accepted = Glibc.accept(descriptor, nil, nil)
        guard accepted >= 0 else { throw failed("accept") }
        return TestSocket(adopting: accepted)
    }

    func send(_ octets: [UInt8]) throws {
        var rest = octets[...]
        while !rest.isEmpty {
            let sent = rest.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard sent > 0 else { throw failed("send") }
            rest = rest.dropFirst(sent)
        }
    }

    func send(_ octets: [UInt8], to address: IPAddress, port: UInt16) throws {
        let sent = octets.withUnsafeBytes { raw in
            withAddress(Endpoint(address, port: port)) { sendto(descriptor, raw.baseAddress, raw.count, 0, $0, $1) }
        }
        guard sent == octets.count else { throw failed("sendto") }
    }

    func receive(_ count: Int) throws -> [UInt8] {
        var result: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while result.count < count {
            let got = recv(descriptor, &buffer, min(buffer.count, count - result.count), 0)
            guard got > 0 else { throw failed("receive (\(result.count) of \(count) so far)") }
            result += buffer[0..<got]
        }
        return result
    }

    /// One datagram and where it came from.
    func receiveFrom() throws -> (octets: [UInt8], source: Endpoint) {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        var storage = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let got = withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                recvfrom(descriptor, &buffer, buffer.count, 0, $0, &length)
            }
        }
        guard got >= 0 else { throw failed("recvfrom") }
        if storage.sin6_family == sa_family_t(AF_INET6) {
            return (Array(buffer[0..<got]), Endpoint(IPAddress(storage.sin6_addr), port: UInt16(bigEndian: storage.sin6_port)))
        }
        // sockaddr_in: family 2, port 2, address 4.
        let v4 = UInt32(bigEndian: storage.sin6_flowinfo)
        return (Array(buffer[0..<got]), Endpoint(IPAddress(ipv4: v4), port: UInt16(bigEndian: storage.sin6_port)))
    }

    private func failed(_ what: String) -> ShellError { ShellError("\(what): \(String(cString: strerror(errno)))") }
}

/// Connects a socket of mn's to one of cn's that is bound to the peer's home address.
///
/// - Returns: the server's end, and the socket that listens.
func connect(_ client: TestSocket, _ cn: Host, _ family: Family, port: UInt16) throws -> (server: TestSocket, listener: TestSocket) {
    let listener = try TestSocket(cn.namespace, TestSocket.stream, family)
    try listener.bind(family.peer, port: port)
    try listener.listen()
    try client.connect(family.peer, port: port)
    return (try listener.accept(), listener)
}

/// A TCP connection from mn to cn between the given addresses; both ends.
func connectTCP(_ net: Topology, from: String? = nil, to: String, port: UInt16) throws -> (
    client: TestSocket, server: TestSocket, listener: TestSocket
) {
    let target = try address(to)
    let listener = try TestSocket(net.cn.namespace, type: TestSocket.stream, isIPv4: target.isIPv4)
    try listener.bind(target.isIPv4 ? .unspecifiedIPv4 : .unspecifiedIPv6, port: port)
    try listener.listen()
    let client = try TestSocket(net.mn.namespace, type: TestSocket.stream, isIPv4: target.isIPv4)
    if let from { try client.bind(try address(from), port: 0) }
    try client.connect(target, port: port)
    return (client, try listener.accept(), listener)
}
