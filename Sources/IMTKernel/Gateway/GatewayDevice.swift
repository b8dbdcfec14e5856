import CLinux
import Glibc
import IMTPlan
import MATSignal

/// The TUN device by which a gateway's packets enter and leave the kernel, the routes that lead HoAs into it, and the kernel's source
/// translation (protocol.md section 11.5, "Gateway").
///
///     plain host ──► the kernel forwards (TTL, "too big", errors) ──► route to the HoA ──► device ──► whoever reads it
///     plain host ◄── the kernel forwards ◄── source translation, if there is any ◄── device ◄── whoever writes to it
///
/// Packets come and go whole, one by one: the kernel cuts up, and sums up, what its stack or a link has joined.
///
/// Device and table stay when the program ends: without a route a HoA's packets would go back to where they came from, and round in circles;
/// and translated connections live on when the program is back. Any thread may read and write.
public final class GatewayDevice: @unchecked Sendable {
    public struct Configuration: Hashable, Sendable {
        public var name = "matgw0"
        /// Of packets to nodes, which travel in datagrams: what every path carries.
        public var mtu: UInt32 = Carriage.mtuAtFirst
        /// HoAs that are routed to this host.
        public var routed: [IPPrefix] = []
        /// HoAs whose packets get an address of this host.
        public var translated: [IPPrefix] = []

        public init() {}
    }

    public let descriptor: Int32
    public let name: String
    private let index: UInt32

    /// Makes the device, or takes over that of an earlier run, and brings it up. Nothing is routed into it before `apply`.
    public init(name: String) throws(KernelError) {
        self.name = name
        descriptor = try TunnelDevice.attach(name, flags: TunnelDevice.flagTun | TunnelDevice.flagNoPacketInformation)
        index = if_nametoindex(name)
        mat_ioctl(descriptor, TunnelDevice.setPersist, UnsafeMutableRawPointer(bitPattern: 1))
        try RouteSocket().configureDevice(index: index, name: name)
    }

    deinit { close(descriptor) }

    /// Has the kernel route and translate so, and not as before.
    public func apply(_ configuration: Configuration) throws(KernelError) {
        let routing = try RouteSocket()
        try routing.setMTU(configuration.mtu, index: index, name: name)
        try Self.translate(GatewayTable(device: name, translated: configuration.translated))
        let prefixes = configuration.routed + configuration.translated
        for family in AddressFamily.allCases {
            let own = prefixes.filter { $0.family == family }
            // A host without IPv6 has nothing to take away there.
            guard let present = try? routing.routes(family: family) else { continue }
            let changes = GatewayTable.routes(own, interfaceIndex: index, present: present)
            if let refused = try routing.apply(changes).first { throw refused.error }
        }
    }

    /// Takes away the device, its routes and the table.
    public func remove() throws(KernelError) {
        mat_ioctl(descriptor, TunnelDevice.setPersist, nil)
        try Self.translate(GatewayTable(device: name, translated: []))
        // The device goes with its last descriptor, which is this object's.
    }

    private static func translate(_ table: GatewayTable) throws(KernelError) {
        let socket = try NetlinkSocket.nftables()
        var batch = NFTBatch(firstSequence: socket.nextSequence)
        for family in AddressFamily.allCases {
            let isThere = try socket.exists(table.definition(family))
            if let change = table.change(family, isThere: isThere) { batch.append(change) }
        }
        guard !batch.isEmpty else { return }
        try batch.seal().commit(on: socket, operation: "install the gateway's source translation")
    }

    // MARK: Packets

    /// Takes the next packet, without waiting.
    ///
    /// - Returns: its octets; 0 if there is none, below 0 if the device is gone.
    public func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
        if count > 0 { return count }
        return errno == EAGAIN || errno == EINTR ? 0 : -1
    }

    /// Has the kernel forward a packet.
    ///
    /// - Returns: whether it took it.
    public func write(_ packet: UnsafeRawBufferPointer) -> Bool { Glibc.write(descriptor, packet.baseAddress, packet.count) == packet.count }
}
