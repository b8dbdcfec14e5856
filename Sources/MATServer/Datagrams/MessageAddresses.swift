import Glibc
import MATSignal

extension IPAddress {
    /// As messages of sockets have it. Of each datagram two are read, so it is not for another module to do.
    @inline(__always)
    init(ofMessage address: in6_addr) {
        self = withUnsafeBytes(of: address) {
            IPAddress(
                high: UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
                low: UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        }
    }
}
