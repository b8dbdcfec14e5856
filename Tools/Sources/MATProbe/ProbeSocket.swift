import Glibc

/// What went wrong, where, and what to do about it.
public struct ProbeError: Error, CustomStringConvertible {
    public let description: String

    public init(_ description: String) { self.description = description }

    /// A refused system call; `number` is errno, read by the caller's default argument at once.
    static func system(_ what: String, _ number: Int32 = errno) -> ProbeError {
        ProbeError("\(what): \(String(cString: strerror(number)))")
    }
}

public enum AddressFamily: String, Codable, Sendable {
    case ipv4, ipv6

    public var title: String { self == .ipv4 ? "IPv4" : "IPv6" }
    var number: Int32 { self == .ipv4 ? AF_INET : AF_INET6 }
}

/// A socket that is closed with its last reference.
final class ProbeSocket: Sendable {
    let descriptor: Int32
    let family: AddressFamily

    private init(descriptor: Int32, family: AddressFamily) {
        self.descriptor = descriptor
        self.family = family
    }

    deinit { close(descriptor) }

    /// A connected TCP or UDP socket; a name is looked up as every program does it.
    /// - Parameter family: nil takes what the look-up prefers.
    static func connected(to host: String, port: UInt16, family: AddressFamily?, type: __socket_type) throws -> ProbeSocket {
        var hints = addrinfo()
        hints.ai_family = family?.number ?? AF_UNSPEC
        hints.ai_socktype = Int32(type.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(host, String(port), &hints, &found)
        guard code == 0, let first = found else {
            throw ProbeError("\(host) cannot be looked up: \(String(cString: gai_strerror(code)))")
        }
        defer { freeaddrinfo(found) }
        var refused = ProbeError("\(host) has no address that can be used")
        var next: UnsafeMutablePointer<addrinfo>? = first
        while let entry = next {
            next = entry.pointee.ai_next
            let descriptor = socket(entry.pointee.ai_family, entry.pointee.ai_socktype, 0)
            guard descriptor >= 0 else { continue }
            let candidate = ProbeSocket(descriptor: descriptor, family: entry.pointee.ai_family == AF_INET ? .ipv4 : .ipv6)
            if connect(descriptor, entry.pointee.ai_addr, entry.pointee.ai_addrlen) == 0 { return candidate }
            refused = .system("connecting to \(host) port \(port)")
        }
        throw refused
    }

    /// A bound UDP socket, or a listening TCP socket, on all addresses of one family or (nil) of both.
    static func bound(port: UInt16, family: AddressFamily?, type: __socket_type) throws -> ProbeSocket {
        let number = family?.number ?? AF_INET6
        let descriptor = socket(number, Int32(type.rawValue), 0)
        guard descriptor >= 0 else { throw ProbeError.system("opening a socket") }
        let result = ProbeSocket(descriptor: descriptor, family: family ?? .ipv6)
        result.set(SOL_SOCKET, SO_REUSEADDR, 1)
        let status: Int32
        if number == AF_INET {
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            status = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
            }
        } else {
            result.set(Int32(IPPROTO_IPV6), IPV6_V6ONLY, family == nil ? 0 : 1)
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(AF_INET6)
            address.sin6_port = port.bigEndian
            status = withUnsafePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
            }
        }
        guard status == 0 else { throw ProbeError.system("binding port \(port)") }
        if type == SOCK_STREAM, listen(descriptor, 8) != 0 { throw ProbeError.system("listening on port \(port)") }
        return result
    }

    /// Waits for one TCP connection; nil when the run was interrupted.
    func accepted() throws -> ProbeSocket? {
        while !Interruption.isRequested {
            guard isReadable(withinMilliseconds: 200) else { continue }
            var address = sockaddr_storage()
            var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            let descriptor = withUnsafeMutablePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { accept(self.descriptor, $0, &length) }
            }
            if descriptor >= 0 { return ProbeSocket(descriptor: descriptor, family: Self.family(of: address)) }
            if errno != EINTR && errno != ECONNABORTED { throw ProbeError.system("accepting a connection") }
        }
        return nil
    }

    /// Connects a bound UDP socket to whoever sent the datagram that waits first.
    func connectToSender() throws -> AddressFamily {
        var address = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let status = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                recvfrom(descriptor, nil, 0, Int32(MSG_PEEK), address, &length) < 0
                    ? -1 : connect(descriptor, address, length)
            }
        }
        guard status == 0 else { throw ProbeError.system("answering a client") }
        return Self.family(of: address)
    }

    func set(_ level: Int32, _ option: Int32, _ value: Int32) {
        var value = value
        setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
    }

    func isReadable(withinMilliseconds milliseconds: Int32) -> Bool { waits(for: Int16(POLLIN), milliseconds) }
    func isWritable(withinMilliseconds milliseconds: Int32) -> Bool { waits(for: Int16(POLLOUT), milliseconds) }

    /// Errors and hang-ups count as ready: the next call on the socket then says what happened.
    private func waits(for events: Int16, _ milliseconds: Int32) -> Bool {
        var entry = pollfd(fd: descriptor, events: events, revents: 0)
        return poll(&entry, 1, milliseconds) > 0
    }

    /// An IPv4 peer of an IPv6 socket shows as ::ffff:a.b.c.d.
    private static func family(of address: sockaddr_storage) -> AddressFamily {
        guard address.ss_family == sa_family_t(AF_INET6) else { return .ipv4 }
        return withUnsafeBytes(of: address) { bytes in
            bytes[8..<18].allSatisfy { $0 == 0 } && bytes[18] == 0xff && bytes[19] == 0xff ? .ipv4 : .ipv6
        }
    }
}
