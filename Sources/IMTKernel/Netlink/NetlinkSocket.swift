import CLinux
import CNetfilter
import Glibc
import IMTPlan

/// A netlink socket and its descriptor.
///
/// Requests are answered while `sendto` runs: the kernel handles netlink in the caller's context. So a request and its
/// acknowledgement are one blocking-free round trip of microseconds, which the event loop can afford.
package final class NetlinkSocket {
    static let datagramBytesMax = 128 * 1024
    /// What the kernel may queue for us: acknowledgements of a large batch, or events while we are busy.
    static let receiveQueueBytes: Int32 = 8 << 20
    /// Interrupted dumps (a table changed meanwhile) are begun again this often.
    static let dumpTriesMax = 5

    let descriptor: Int32
    /// By which the kernel tells this socket's requests from others', also in the events that they cause.
    private(set) var port: UInt32 = 0
    private let name: String
    private let buffer: UnsafeMutableRawBufferPointer
    private var sequence: UInt32 = 1

    init(protocol number: Int32, name: String, groups: [UInt32] = []) throws(KernelError) {
        self.name = name
        descriptor = socket(
            AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), number)
        guard descriptor >= 0 else { throw .system("open netlink socket", name) }
        buffer = .allocate(byteCount: Self.datagramBytesMax, alignment: 16)
        var address = sockaddr_nl()
        address.nl_family = sa_family_t(AF_NETLINK)
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_nl>.size))
            }
        }
        guard bound == 0 else { throw .system("bind netlink socket", name) }
        var length = socklen_t(MemoryLayout<sockaddr_nl>.size)
        let named = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        guard named == 0 else { throw .system("name netlink socket", name) }
        port = address.nl_pid
        // Without CAP_NET_ADMIN the first fails; the defaults then still serve small tables.
        set(SOL_SOCKET, SO_RCVBUFFORCE, Self.receiveQueueBytes)
        set(KernelValues.solNetlink, KernelValues.optionCapAck, 1)
        set(KernelValues.solNetlink, KernelValues.optionExtAck, 1)
        set(KernelValues.solNetlink, KernelValues.optionStrictCheck, 1)
        for group in groups {
            guard set(KernelValues.solNetlink, KernelValues.optionAddMembership, Int32(bitPattern: group)) else {
                throw .system("subscribe to netlink group \(group)", name)
            }
        }
    }

    /// For tables of nftables.
    package static func nftables() throws(KernelError) -> NetlinkSocket {
        try NetlinkSocket(protocol: KernelValues.netlinkNetfilter, name: "nftables")
    }

    /// Where the next batch's numbers begin.
    package var nextSequence: UInt32 { sequence }

    deinit {
        close(descriptor)
        buffer.deallocate()
    }

    /// Joins a multicast group again, or leaves it for a while.
    func listen(_ on: Bool, to group: UInt32) {
        set(KernelValues.solNetlink, on ? KernelValues.optionAddMembership : KernelValues.optionDropMembership, Int32(bitPattern: group))
    }

    @discardableResult
    private func set(_ level: Int32, _ option: Int32, _ value: Int32) -> Bool {
        var value = value
        return setsockopt(descriptor, level, option, &value, 4) == 0
    }

    /// A writer whose sequence numbers continue this socket's.
    func writer(capacity: Int = 4 * NetlinkWriter.messageBytesMax) -> NetlinkWriter {
        NetlinkWriter(firstSequence: sequence, capacity: capacity)
    }

    /// Sends everything in `writer` at once and reads all answers.
    /// - Parameter replies: called for each message that is neither an acknowledgement nor a refusal.
    /// - Returns: acknowledgements (errno 0) and refusals, in the kernel's order.
    func exchange(
        _ writer: borrowing NetlinkWriter, operation: String, replies: (NetlinkIncoming) -> Void = { _ in }
    ) throws(KernelError) -> [NetlinkFailure] {
        sequence = writer.nextSequence
        let bytes = writer.bytes
        // The kernel refuses a datagram over its send buffer (which it doubles); a large batch needs more than the default.
        if bytes.count > 64 * 1024 { set(SOL_SOCKET, SO_SNDBUFFORCE, Int32(clamping: bytes.count + 65_536)) }
        var answers: [NetlinkFailure] = []
        discardStale()
        var sent = send(descriptor, bytes.baseAddress, bytes.count, 0)
        while sent < 0 && errno == EINTR { sent = send(descriptor, bytes.baseAddress, bytes.count, 0) }
        guard sent == bytes.count else { throw .system(operation, "send \(bytes.count) octets to \(name)") }
        let first = writer.firstSequence
        try drain(operation: operation) { incoming in
            // Nothing but answers to this request arrives here; what does not match is left over from one that failed.
            guard incoming.sequence &- first < writer.nextSequence &- first else { return }
            if incoming.type == KernelValues.messageError {
                if let answer = NetlinkFailure.decode(incoming) { answers.append(answer) }
            } else {
                replies(incoming)
            }
        }
        return answers
    }

    /// Asks for a dump and calls `body` for each object.
    func dump(
        type: UInt16, operation: String, header: [UInt8], attributes: (NetlinkMessage) -> Void = { _ in },
        restart: () -> Void, _ body: (NetlinkIncoming) -> Void
    ) throws(KernelError) {
        for _ in 0..<Self.dumpTriesMax {
            var request = writer()
            let number = request.append(type: type, flags: KernelValues.flagDump) { message in
                message.putHeader(header)
                attributes(message)
            }
            sequence = request.nextSequence
            discardStale()
            let bytes = request.bytes
            guard send(descriptor, bytes.baseAddress, bytes.count, 0) == bytes.count else {
                throw .system(operation, "send to \(name)")
            }
            var done = false
            var interrupted = false
            var failure: Int32 = 0
            // Each read makes the kernel produce the next part, so the socket is never empty before the end.
            while !done {
                let before = failure
                let count = try drain(operation: operation) { incoming in
                    guard incoming.sequence == number else { return }
                    if incoming.flags & KernelValues.flagDumpInterrupted != 0 { interrupted = true }
                    switch incoming.type {
                    case KernelValues.messageDone:
                        done = true
                    case KernelValues.messageError:
                        failure = NetlinkFailure.decode(incoming)?.errno ?? EIO
                        done = true
                    default:
                        body(incoming)
                    }
                }
                if count == 0 && !done && failure == before {
                    throw KernelError(.garbled, operation: operation, object: "\(name): the dump ended without its last message")
                }
            }
            // A table that does not exist has nothing in it.
            if failure != 0 && failure != ENOENT && failure != EINTR { throw .system(operation, name, errno: failure) }
            if !interrupted && failure != EINTR { return }
            restart()
        }
        throw KernelError(.garbled, operation: operation, object: "\(name): changed faster than it could be read", errno: EINTR)
    }

    /// Reads until nothing is left, or so many datagrams: the loop comes back for the rest.
    /// - Returns: how many datagrams were read; throws ENOBUFS when the kernel had to drop some.
    @discardableResult
    func drain(operation: String, most: Int = .max, _ body: (NetlinkIncoming) -> Void) throws(KernelError) -> Int {
        var datagrams = 0
        while datagrams < most {
            let count = recv(descriptor, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT) | Int32(MSG_TRUNC))
            if count < 0 {
                switch errno {
                case EINTR: continue
                case EAGAIN: return datagrams
                default: throw .system(operation, "receive from \(name)")
                }
            }
            datagrams += 1
            guard count <= buffer.count else {
                throw KernelError(.garbled, operation: operation, object: "\(name) sent a datagram of \(count) octets")
            }
            NetlinkIncoming.forEach(in: UnsafeRawBufferPointer(rebasing: buffer[0..<count]), body)
        }
        return datagrams
    }

    private func discardStale() {
        while recv(descriptor, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT)) > 0 || errno == ENOBUFS { errno = 0 }
    }
}
