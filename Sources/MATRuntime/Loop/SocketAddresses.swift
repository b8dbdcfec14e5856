import Glibc
import MATSignal

extension IPAddress {
    public init(_ address: in6_addr) {
        let words = withUnsafeBytes(of: address) { ($0.loadUnaligned(as: UInt64.self), $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)) }
        self.init(high: UInt64(bigEndian: words.0), low: UInt64(bigEndian: words.1))
    }
}

extension IPAddress {
    /// All 16 octets as sockets want them.
    // Not an initializer of in6_addr: several C modules show that structure, and an extension of one was now and then not found
    // by other modules in incremental builds.
    public var in6: in6_addr {
        var result = in6_addr()
        withUnsafeMutableBytes(of: &result) {
            $0.storeBytes(of: high.bigEndian, as: UInt64.self)
            $0.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
        return result
    }
}

// IPPROTO_* is a C enum of Int in Glibc's module and a macro elsewhere; setsockopt wants Int32.
extension Int {
    var number: Int32 { Int32(truncatingIfNeeded: self) }
}

/// An AF_INET6 socket address, as system calls want it; IPv4 in mapped form.
public struct SocketName {
    private var name = sockaddr_in6()

    /// - Parameter scope: the link of an address that only has a meaning on one.
    public init(_ endpoint: Endpoint, scope: UInt32 = 0) {
        name.sin6_family = sa_family_t(AF_INET6)
        name.sin6_port = endpoint.port.bigEndian
        name.sin6_addr = endpoint.address.in6
        name.sin6_scope_id = scope
    }

    public func use<T>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
        withUnsafePointer(to: name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
        }
    }
}
