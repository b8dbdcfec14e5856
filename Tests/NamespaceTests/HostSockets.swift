import Foundation
import Glibc
import Namespaces

/// A socket that lives in one of the lab's hosts, used from the test's own process: `connect` and answers can be timed without a
/// program's start between.
final class HostSocket: @unchecked Sendable {
    let descriptor: Int32
    private let isIPv4: Bool

    /// - Parameter type: `SOCK_STREAM`, `SOCK_DGRAM` or `SOCK_RAW`.
    init(_ lab: Lab, _ host: String, _ type: __socket_type, isIPv4: Bool, protocolNumber: Int32 = 0) throws {
        self.isIPv4 = isIPv4
        descriptor = try Namespace.inside("\(lab.name)-\(host)") {
            socket(isIPv4 ? AF_INET : AF_INET6, Int32(type.rawValue) | Int32(SOCK_CLOEXEC.rawValue), protocolNumber)
        }
        guard descriptor >= 0 else { throw Self.failed("socket") }
        setTimeout(3)
    }

    deinit { close(descriptor) }

    /// How long each call waits at most.
    func setTimeout(_ seconds: Double) {
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) & ~O_NONBLOCK)
        var time = timeval(tv_sec: Int(seconds), tv_usec: Int(seconds.truncatingRemainder(dividingBy: 1) * 1e6))
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] { setsockopt(descriptor, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size)) }
    }

    static func failed(_ what: String) -> Lab.Failure { Lab.Failure(description: "\(what): \(String(cString: strerror(errno)))") }

    /// The address as the calls want it; `port` 0 and "any" for a server's own.
    static func withAddress<T>(_ text: String, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
        if text.contains(":") {
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(AF_INET6)
            address.sin6_port = port.bigEndian
            inet_pton(AF_INET6, text, &address.sin6_addr)
            return withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
            }
        }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        inet_pton(AF_INET, text, &address.sin_addr)
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }

    private init(adopting descriptor: Int32, isIPv4: Bool) {
        self.isIPv4 = isIPv4
        self.descriptor = descriptor
        setTimeout(3)
    }

    func listen(backlog: Int32 = 8) throws {
        guard Glibc.listen(descriptor, backlog) == 0 else { throw Self.failed("listen") }
    }

    func accept() throws -> HostSocket {
        let accepted = Glibc.accept(descriptor, nil, nil)
        guard accepted >= 0 else { throw Self.failed("accept") }
        return HostSocket(adopting: accepted, isIPv4: isIPv4)
    }

    func bindAll(port: UInt16) throws { try bind(isIPv4 ? "0.0.0.0" : "::", port: port) }

    func bind(_ address: String, port: UInt16) throws {
        var yes: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, 4)
        let result = Self.withAddress(address, port) { Glibc.bind(descriptor, $0, $1) }
        guard result == 0 else { throw Self.failed("bind to \(port)") }
    }

    func connect(_ address: String, port: UInt16) throws {
        let result = Self.withAddress(address, port) { Glibc.connect(descriptor, $0, $1) }
        guard result == 0 else { throw Self.failed("connect to \(address)") }
    }

    /// Does not wait for the connection; nor does anything else of this socket until `setTimeout`.
    func beginConnecting(_ address: String, port: UInt16) throws {
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        let result = Self.withAddress(address, port) { Glibc.connect(descriptor, $0, $1) }
        guard result == 0 || errno == EINPROGRESS else { throw Self.failed("connect to \(address)") }
    }

    /// The other end, and the own port.
    func peer() throws -> (address: String, port: UInt16) { try name(getpeername) }
    var port: UInt16 { (try? name(getsockname))?.port ?? 0 }

    private func name(
        _ ask: (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
    ) throws -> (address: String, port: UInt16) {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        var buffer = [CChar](repeating: 0, count: 64)
        let descriptor = descriptor
        let port = try withUnsafeMutablePointer(to: &storage) { storage in
            let result = storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { ask(descriptor, $0, &length) }
            guard result == 0 else { throw Self.failed("the name") }
            // Of both families the port lies at the same place.
            return storage.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { name -> UInt16 in
                if name.pointee.sin6_family == sa_family_t(AF_INET6) {
                    inet_ntop(AF_INET6, &name.pointee.sin6_addr, &buffer, 64)
                } else {
                    storage.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { _ = inet_ntop(AF_INET, &$0.pointee.sin_addr, &buffer, 64) }
                }
                return UInt16(bigEndian: name.pointee.sin6_port)
            }
        }
        return (String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self), port)
    }

    func send(_ octets: [UInt8]) throws {
        guard octets.withUnsafeBytes({ Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }) == octets.count else {
            throw Self.failed("send")
        }
    }

    func receive() throws -> [UInt8] {
        var octets = [UInt8](repeating: 0, count: 2048)
        let count = octets.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress, $0.count, 0) }
        guard count >= 0 else { throw Self.failed("receive") }
        return Array(octets.prefix(count))
    }

    /// Answers each datagram with the octets of the address that it came from, until `endEcho`.
    func tellSources() {
        echo { source in
            source.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { v6 in
                if v6.pointee.sin6_family == sa_family_t(AF_INET6) { return withUnsafeBytes(of: v6.pointee.sin6_addr) { Array($0) } }
                return source.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { v4 in withUnsafeBytes(of: v4.pointee.sin_addr) { Array($0) } }
            }
        }
    }

    /// Answers each datagram with itself, until the socket's owner shuts it down.
    func echo() { echo { _ in nil } }

    private func echo(_ answer: @escaping @Sendable (UnsafeMutablePointer<sockaddr>) -> [UInt8]?) {
        let descriptor = dup(descriptor)
        let thread = Thread {
            var octets = [UInt8](repeating: 0, count: 2048)
            var source = sockaddr_storage()
            while true {
                var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
                let isGone = withUnsafeMutablePointer(to: &source) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                        let count = recvfrom(descriptor, &octets, octets.count, 0, address, &length)
                        if count < 0 { return errno == EBADF || errno == ENOTCONN }
                        if count == 0 { return true }
                        if let text = answer(address) {
                            sendto(descriptor, text, text.count, 0, address, length)
                        } else {
                            sendto(descriptor, &octets, count, 0, address, length)
                        }
                        return false
                    }
                }
                if isGone { break }
            }
            close(descriptor)
        }
        thread.start()
    }

    /// Ends `echo`: an empty datagram to itself does, since unconnected sockets can't be shut down.
    func endEcho(_ address: String, port: UInt16) {
        let own = isIPv4 ? "127.0.0.1" : "::1"
        _ = Self.withAddress(address.isEmpty ? own : address, port) { sendto(descriptor, nil, 0, 0, $0, $1) }
    }
}

/// Milliseconds that something took.
func milliseconds(_ body: () throws -> Void) rethrows -> Double {
    let start = ContinuousClock.now
    try body()
    return Double((ContinuousClock.now - start).components.attoseconds) / 1e15 + Double((ContinuousClock.now - start).components.seconds) * 1000
}
