import CLinux
import Glibc
import MATSignal

/// Datagrams for sendmmsg and recvmmsg: headers, buffers and addresses made once, so that the loop measures the kernel and
/// nothing else.
final class MessageBatch {
    let count: Int
    let messages: UnsafeMutablePointer<mat_message>
    private let vectors: UnsafeMutablePointer<iovec>
    private let octets: UnsafeMutableRawPointer
    private let names: UnsafeMutablePointer<sockaddr_storage>
    private var destinations: [SocketAddress] = []
    private var nextDestination = 0
    private var sources: [PacketInfo] = []
    private var nextSource = 0
    private let controls: UnsafeMutablePointer<PacketInfo>

    init(count: Int, octetsEach: Int) {
        self.count = count
        messages = .allocate(capacity: count)
        vectors = .allocate(capacity: count)
        names = .allocate(capacity: count)
        controls = .allocate(capacity: count)
        octets = .allocate(byteCount: count * octetsEach, alignment: 64)
        octets.initializeMemory(as: UInt8.self, repeating: 0x5A, count: count * octetsEach)
        names.initialize(repeating: sockaddr_storage(), count: count)
        for index in 0..<count {
            vectors[index] = iovec(iov_base: octets + index * octetsEach, iov_len: octetsEach)
            var message = mat_message()
            message.header.msg_iov = vectors + index
            message.header.msg_iovlen = 1
            messages.advanced(by: index).initialize(to: message)
        }
    }

    deinit {
        messages.deallocate()
        vectors.deallocate()
        names.deallocate()
        controls.deallocate()
        octets.deallocate()
    }

    /// Sends from and to these in turn, for sockets that are not connected.
    func spread(from sources: [IPAddress], to destinations: [SocketAddress]) {
        self.destinations = destinations
        self.sources = sources.map { PacketInfo($0) }
    }

    /// Moves on to the next addresses, if there are several.
    @inline(__always)
    func turn() {
        guard !destinations.isEmpty else { return }
        for index in 0..<count {
            destinations[nextDestination].use { address, length in
                memcpy(names + index, address, Int(length))
                messages[index].header.msg_name = UnsafeMutableRawPointer(names + index)
                messages[index].header.msg_namelen = length
            }
            nextDestination += 1
            if nextDestination == destinations.count { nextDestination = 0 }
            guard !sources.isEmpty else { continue }
            controls[index] = sources[nextSource]
            messages[index].header.msg_control = UnsafeMutableRawPointer(controls + index)
            messages[index].header.msg_controllen = sources[nextSource].length
            nextSource += 1
            if nextSource == sources.count { nextSource = 0 }
        }
    }
}

/// A control message that chooses the source address: IP_PKTINFO or IPV6_PKTINFO (struct cmsghdr: length 8 octets, level 4, type 4).
struct PacketInfo {
    private var words: (UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0)
    let length: Int

    init(_ source: IPAddress) {
        // struct in_pktinfo: interface 4, local address 4, destination 4. struct in6_pktinfo: address 16, interface 4.
        let (level, type, size, offset) = source.isIPv4 ? (Int32(0), Int32(8), 12, 4) : (Int32(41), Int32(50), 20, 0)
        length = 16 + (size + 7) / 8 * 8
        withUnsafeMutableBytes(of: &words) { bytes in
            bytes.storeBytes(of: 16 + size, as: Int.self)
            bytes.storeBytes(of: level, toByteOffset: 8, as: Int32.self)
            bytes.storeBytes(of: type, toByteOffset: 12, as: Int32.self)
            for (index, octet) in source.packetOctets.enumerated() { bytes[16 + offset + index] = octet }
        }
    }
}
