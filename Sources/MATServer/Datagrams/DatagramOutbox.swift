import CLinux
import Glibc
import MATRuntime
import MATSignal

/// Datagrams that one thread has to send, sent many by one system call.
///
/// ```
///   add ──► 0 ... 63 ──► send        full, or for another socket: what waits is sent first
/// ```
/// A call of its own for each costs more than the datagram itself where the kernel's security modules look at every call.
package final class DatagramOutbox {
    /// Datagrams sent by one call at most.
    package static let datagramsMax = 64

    private let max: Int
    private let messages: UnsafeMutablePointer<mat_message>
    private let slots: UnsafeMutablePointer<mat_sent_slot>
    private let vectors: UnsafeMutablePointer<iovec>
    private let octets: UnsafeMutableRawPointer
    private var places: [(local: IPAddress?, peer: Endpoint)] = []
    /// By which all that waits goes.
    private var socket: BoundSocket?
    /// Gets what the kernel refused, one by one.
    private let refused: ([UInt8], IPAddress?, Endpoint) -> Void
    /// Asked before each call to the kernel: whether it is to be sent at all.
    private let maySend: (BoundSocket) -> Bool

    /// - Parameters:
    ///   - max: datagrams sent by one call.
    ///   - maySend: asked before each call; what it says no to is dropped.
    package init(
        max: Int = datagramsMax, maySend: @escaping (BoundSocket) -> Bool = { _ in true },
        refused: @escaping ([UInt8], IPAddress?, Endpoint) -> Void = { _, _, _ in }
    ) {
        self.max = Swift.max(1, max)
        self.maySend = maySend
        self.refused = refused
        messages = .allocate(capacity: self.max)
        messages.initialize(repeating: mat_message(), count: self.max)
        slots = .allocate(capacity: self.max)
        slots.initialize(repeating: mat_sent_slot(), count: self.max)
        vectors = .allocate(capacity: self.max)
        vectors.initialize(repeating: iovec(), count: self.max)
        octets = .allocate(byteCount: self.max * DatagramBatch.octetsPerDatagram, alignment: 64)
        places.reserveCapacity(self.max)
    }

    deinit {
        messages.deallocate()
        slots.deallocate()
        vectors.deallocate()
        octets.deallocate()
    }

    package var isFull: Bool { places.count == max }

    /// Takes a datagram, which is copied. Longer ones than the protocol's are refused.
    package func add(_ datagram: [UInt8], from local: IPAddress?, to peer: Endpoint, by socket: BoundSocket) {
        if isFull || self.socket !== socket { send() }
        guard datagram.count <= DatagramBatch.octetsPerDatagram else { return refused(datagram, local, peer) }
        self.socket = socket
        let index = places.count
        let room = octets + index * DatagramBatch.octetsPerDatagram
        datagram.withUnsafeBytes { UnsafeMutableRawBufferPointer(start: room, count: $0.count).copyMemory(from: $0) }
        vectors[index] = iovec(iov_base: room, iov_len: datagram.count)
        var header = mat_datagram()
        header.peer = peer.address.in6
        header.peer_port = peer.port
        if let local { header.local = local.in6 }
        mat_batch_forwards(messages + index, slots + index, vectors + index, &header, 0)
        // From whatever address the route wants.
        if local == nil { messages[index].header.msg_controllen = 0 }
        places.append((local, peer))
    }

    /// Sends all that waits.
    package func send() {
        guard let socket, !places.isEmpty else { return }
        defer { places.removeAll(keepingCapacity: true) }
        guard maySend(socket) else { return }
        sendMessages(messages, places.count, by: socket.descriptor, flags: Int(MSG_DONTWAIT) | Int(MSG_NOSIGNAL)) { index in
            let datagram = Array(UnsafeRawBufferPointer(start: vectors[index].iov_base, count: vectors[index].iov_len))
            refused(datagram, places[index].local, places[index].peer)
        }
    }

    /// Forgets all that waits.
    package func drop() { places.removeAll(keepingCapacity: true) }
}
