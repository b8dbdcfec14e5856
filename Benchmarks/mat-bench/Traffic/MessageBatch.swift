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

    init(count: Int, octetsEach: Int) {
        self.count = count
        messages = .allocate(capacity: count)
        vectors = .allocate(capacity: count)
        names = .allocate(capacity: count)
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
        octets.deallocate()
    }

    /// Sends to these in turn, for sockets that are not connected.
    func spread(over destinations: [SocketAddress]) { self.destinations = destinations }

    /// Moves on to the next destinations, if there are several.
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
        }
    }
}
