import CLinux
import Glibc
import MATRuntime
import MATSignal

// Datagrams for sendmmsg and recvmmsg: all memory is made once, so that the generator costs little beside the kernel.

/// Control messages of one datagram: IPV6_PKTINFO alone. struct cmsghdr: length 8 octets, level 4, type 4; struct in6_pktinfo: address
/// 16, interface 4; kernel ABI.
private enum PacketInfo {
    static let octetsCount = 40
    static let level: Int32 = 41
    static let type: Int32 = 50
    static let headerOctets = 16
    static let valueOctets = 20
}

/// The memory of as many datagrams as one call takes, all of it zero at first, each datagram's message naming its octets.
private struct Room {
    static let datagramsMax = 64
    static let octetsMax = 2048

    let messages: UnsafeMutablePointer<mat_message>
    let vectors: UnsafeMutablePointer<iovec>
    let names: UnsafeMutablePointer<sockaddr_in6>
    let controls: UnsafeMutableRawPointer
    let octets: UnsafeMutableRawPointer

    init() {
        messages = .allocate(capacity: Self.datagramsMax)
        vectors = .allocate(capacity: Self.datagramsMax)
        names = .allocate(capacity: Self.datagramsMax)
        controls = .allocate(byteCount: Self.datagramsMax * PacketInfo.octetsCount, alignment: 8)
        octets = .allocate(byteCount: Self.datagramsMax * Self.octetsMax, alignment: 64)
        names.initialize(repeating: sockaddr_in6(), count: Self.datagramsMax)
        controls.initializeMemory(as: UInt8.self, repeating: 0, count: Self.datagramsMax * PacketInfo.octetsCount)
        octets.initializeMemory(as: UInt8.self, repeating: 0, count: Self.datagramsMax * Self.octetsMax)
        for index in 0..<Self.datagramsMax {
            vectors[index] = iovec(iov_base: octets + index * Self.octetsMax, iov_len: Self.octetsMax)
            var message = mat_message()
            message.header.msg_iov = vectors + index
            message.header.msg_iovlen = 1
            messages.advanced(by: index).initialize(to: message)
        }
    }

    func deallocate() {
        messages.deallocate()
        vectors.deallocate()
        names.deallocate()
        controls.deallocate()
        octets.deallocate()
    }

    func name(_ index: Int) -> UnsafeMutableRawPointer { UnsafeMutableRawPointer(names + index) }
    func control(_ index: Int) -> UnsafeMutableRawPointer { controls + index * PacketInfo.octetsCount }
}

/// Datagrams on their way out, from any source to any destination.
final class Outbox {
    static let datagramsMax = Room.datagramsMax
    static let octetsMax = Room.octetsMax

    private let socket: LoadSocket
    private let room = Room()
    private var count = 0
    /// What the kernel took, and what it refused: no route, no buffer.
    private(set) var sentCount: UInt64 = 0
    private(set) var refusedCount: UInt64 = 0
    private(set) var lastRefusal: Int32 = 0

    init(_ socket: LoadSocket) {
        self.socket = socket
        for index in 0..<Self.datagramsMax {
            let control = room.control(index)
            control.storeBytes(of: PacketInfo.headerOctets + PacketInfo.valueOctets, as: Int.self)
            control.storeBytes(of: PacketInfo.level, toByteOffset: 8, as: Int32.self)
            control.storeBytes(of: PacketInfo.type, toByteOffset: 12, as: Int32.self)
            room.messages[index].header.msg_name = room.name(index)
            room.messages[index].header.msg_namelen = socklen_t(MemoryLayout<sockaddr_in6>.size)
            room.messages[index].header.msg_control = control
            room.messages[index].header.msg_controllen = PacketInfo.octetsCount
        }
    }

    deinit { room.deallocate() }

    /// Adds a datagram that `fill` writes; it returns how many octets it has, at most `octetsMax`.
    func add(from local: IPAddress, to peer: Endpoint, _ fill: (UnsafeMutableRawPointer) -> Int) {
        if count == Self.datagramsMax { flush() }
        let length = fill(room.octets + count * Self.octetsMax)
        room.vectors[count].iov_len = min(max(0, length), Self.octetsMax)
        room.names[count].sin6_family = sa_family_t(AF_INET6)
        room.names[count].sin6_port = peer.port.bigEndian
        room.names[count].sin6_addr = peer.address.in6
        (room.control(count) + PacketInfo.headerOctets).storeBytes(of: local.in6, as: in6_addr.self)
        count += 1
    }

    func flush() {
        var first = 0
        while first < count {
            let sent = Int(mat_sendmmsg(socket.descriptor, room.messages + first, UInt32(count - first), Int32(MSG_DONTWAIT)))
            if sent > 0 {
                first += sent
                sentCount &+= UInt64(sent)
            } else if errno == EAGAIN || errno == ENOBUFS {
                var wait = pollfd(fd: socket.descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&wait, 1, 1)
            } else if errno != EINTR {
                // An error may belong to an earlier datagram (ICMP); the one at hand is given up, the rest goes on.
                lastRefusal = errno
                refusedCount &+= 1
                first += 1
            }
        }
        count = 0
    }
}

/// Datagrams that came, with their source and, for a socket that asked for it, the address they came to.
final class Inbox {
    static let datagramsMax = Room.datagramsMax
    static let octetsMax = Room.octetsMax

    private let socket: LoadSocket
    private let room = Room()
    private let wantsAddresses: Bool
    private var received = 0

    init(_ socket: LoadSocket, wantsAddresses: Bool) {
        self.socket = socket
        self.wantsAddresses = wantsAddresses
        guard wantsAddresses else { return }
        for index in 0..<Self.datagramsMax {
            room.messages[index].header.msg_name = room.name(index)
            room.messages[index].header.msg_control = room.control(index)
        }
    }

    deinit { room.deallocate() }

    /// Takes what has come, without waiting.
    ///
    /// - Returns: how many datagrams; they stay until the next call.
    func receive() -> Int {
        if wantsAddresses {
            // What the call before filled in; at first, all.
            for index in 0..<(received == 0 ? Self.datagramsMax : received) {
                room.messages[index].header.msg_namelen = socklen_t(MemoryLayout<sockaddr_in6>.size)
                room.messages[index].header.msg_controllen = PacketInfo.octetsCount
            }
        }
        received = max(0, Int(mat_recvmmsg(socket.descriptor, room.messages, UInt32(Self.datagramsMax), Int32(MSG_DONTWAIT))))
        return received
    }

    @inline(__always)
    func datagram(_ index: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: room.octets + index * Self.octetsMax, count: min(Int(room.messages[index].length), Self.octetsMax))
    }

    func source(_ index: Int) -> Endpoint {
        Endpoint(IPAddress(room.names[index].sin6_addr), port: UInt16(bigEndian: room.names[index].sin6_port))
    }

    /// The address that the datagram was sent to; `nil` if the kernel did not say.
    func local(_ index: Int) -> IPAddress? {
        let control = room.control(index)
        guard room.messages[index].header.msg_controllen >= PacketInfo.headerOctets + PacketInfo.valueOctets,
            control.load(fromByteOffset: 8, as: Int32.self) == PacketInfo.level,
            control.load(fromByteOffset: 12, as: Int32.self) == PacketInfo.type
        else { return nil }
        return IPAddress(control.loadUnaligned(fromByteOffset: PacketInfo.headerOctets, as: in6_addr.self))
    }

    /// Sleeps until something comes, at most for so long.
    func wait(milliseconds: Int32) {
        var wait = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
        poll(&wait, 1, milliseconds)
    }
}
