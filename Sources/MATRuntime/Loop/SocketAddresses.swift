import Glibc
import MATSignal

extension IPAddress {
    public init(_ address: in6_addr) {
        let words = withUnsafeBytes(of: address) { ($0.loadUnaligned(as: UInt64.self), $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)) }
        self.init(high: UInt64(bigEndian: words.0), low: UInt64(bigEndian: words.1))
    }
}

extension in6_addr {
    public init(_ address: IPAddress) {
        self.init()
        withUnsafeMutableBytes(of: &self) {
            $0.storeBytes(of: address.high.bigEndian, as: UInt64.self)
            $0.storeBytes(of: address.low.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
    }
}

// IPPROTO_* is a C enum of Int in Glibc's module and a macro elsewhere; setsockopt wants Int32.
extension Int {
    var number: Int32 { Int32(truncatingIfNeeded: self) }
}
