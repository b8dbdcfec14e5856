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
