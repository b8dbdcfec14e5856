import CLinux
import Glibc
import MATSignal

/// A `BoundSocket` whose datagrams come by an event loop.
public final class UDPSocket {
    public typealias Options = BoundSocket.Options

    /// Datagrams of the protocol have at most 1232 octets; a longer one is cut off and recognised by that.
    static let receiveBytesMax = 2048
    /// Datagrams handled per turn of the loop, so that a flood can't starve timers.
    static let datagramsPerTurnMax = 64

    private let socket: BoundSocket
    private let loop: EventLoop

    /// Binds to the port at all addresses, or at one.
    ///
    /// - Parameter received: the datagram (valid during the call), its source, and the local address it was sent to.
    public init(
        loop: EventLoop, port: UInt16, address: IPAddress? = nil, options: Options = Options(),
        received: @escaping (UnsafeRawBufferPointer, Endpoint, IPAddress) -> Void
    ) throws(SystemError) {
        socket = try BoundSocket(port: port, address: address, options: options)
        self.loop = loop
        try loop.watch(socket.descriptor) { [unowned self] in receive(received) }
    }

    deinit { loop.unwatch(socket.descriptor) }

    /// Leaves what arrives from now on in the socket, for good; sending goes on.
    public func stopReceiving() { loop.unwatch(socket.descriptor) }

    /// As `BoundSocket.send`.
    @discardableResult
    public func send(_ bytes: [UInt8], from local: IPAddress? = nil, to peer: Endpoint) -> SystemError? {
        socket.send(bytes, from: local, to: peer)
    }

    /// As `BoundSocket.sendIfRoom`.
    @discardableResult
    public func sendIfRoom(_ bytes: [UInt8], from local: IPAddress? = nil, to peer: Endpoint) -> SystemError? {
        socket.sendIfRoom(bytes, from: local, to: peer)
    }

    private func receive(_ received: (UnsafeRawBufferPointer, Endpoint, IPAddress) -> Void) {
        withUnsafeTemporaryAllocation(byteCount: Self.receiveBytesMax, alignment: 8) { buffer in
            for _ in 0..<Self.datagramsPerTurnMax {
                var header = mat_datagram()
                let count = mat_receive(socket.descriptor, buffer.baseAddress, buffer.count, &header)
                if count < 0 { return }
                guard count <= buffer.count else { continue }
                received(
                    UnsafeRawBufferPointer(rebasing: buffer[0..<count]),
                    Endpoint(IPAddress(header.peer), port: header.peer_port), IPAddress(header.local))
            }
        }
    }
}
