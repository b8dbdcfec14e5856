import IMTPlan
import MATRuntime
import MATSignal

// The device's packets, which are held or leave in datagrams, and the UDP ports of the latter.
extension IMTKernel {
    // MARK: Ports

    /// Opens a UDP port of the node, for signalling and for packets in datagrams; 6289 and, for own MoAs that are translated, others. An own
    /// endpoint whose port is not open sends nothing.
    ///
    /// - Parameter received: what is signalling (valid during the call), its source, and the local address that it was sent to.
    public func openEndpoint(
        port: UInt16, received: @escaping (UnsafeRawBufferPointer, Endpoint, IPAddress) -> Void
    ) throws(SystemError) -> EndpointSocket {
        try encapsulator.open(port: port, mark: configuration.mark, received: received)
    }

    /// The socket of an open port.
    public func endpoint(port: UInt16) -> EndpointSocket? { encapsulator.socket(port) }

    public func closeEndpoint(port: UInt16) { encapsulator.close(port: port) }

    /// What comes to and leaves from the agent's ports is the agent's, whoever the address at the other end is a peer's for rewritten packets.
    func exemptPorts() {
        var needs = tables.needs
        needs.otherPorts = encapsulator.ports.subtracting([SignalPort.node]).sorted()
        // Before the start there are no rules that could be written anew.
        guard device != nil else {
            tables.needs = needs
            return
        }
        do throws(KernelError) { try tables.set(needs: needs) } catch { onEvent(.failed(error)) }
    }

    /// Sends a message inside an encapsulated packet, between the endpoints that it names.
    ///
    /// - Returns: `nil`, or why the kernel refused.
    @discardableResult
    public func sendInPath(_ message: InPathMessage) -> SystemError? { encapsulator.send(message) }

    /// What was dropped of packets in datagrams.
    public var encapsulationDrops: EncapsulationDrops {
        var drops = encapsulator.drops
        drops.congested &+= forwarding?.congested ?? 0
        return drops
    }

    /// What these peers' paths in datagrams have carried, whoever carried it; read several times a second while packets go.
    public func pathUses(of pairs: [HomePair]) -> [PathUse] {
        let uses = encapsulator.uses(of: pairs)
        guard let forwarding else { return uses }
        return uses.map { use in
            guard let others = forwarding.use(of: use.pair, to: use.far) else { return use }
            return PathUse(use.pair, far: use.far, sent: use.sent &+ others.sent, heard: use.heard &+ others.heard, came: use.came &+ others.came)
        }
    }

    /// What was rewritten for these peers; nothing of those that the tables can't be read about.
    public func rewrittenUses(of paths: [RewrittenPath]) -> [RewrittenUse] {
        ((try? tables.uses(of: paths)) ?? []).map { use in
            guard let counts = forwarding?.rewriting?.counts(of: use.pair) else { return use }
            return RewrittenUse(use.pair, sent: use.sent &+ counts.packetsOut, came: use.came &+ counts.packetsIn)
        }
    }

    // MARK: Links

    /// Whether these peers' packets leave in datagrams now, or are held because the link is gone.
    func linksKnown(of peers: some Sequence<HomeAddress>) {
        guard !tables.model.encapsulated.isEmpty else { return }
        for peer in peers {
            guard let (pair, carriage) = tables.model.entry(of: peer, configuration), carriage.way.endpoints != nil else { continue }
            encapsulator.setLink(pair, installed.peers.isSeparate(peer))
        }
    }

    /// Likewise of all peers of further HoAs.
    func linksKnownOfFurtherHomes() {
        guard hasFurtherHomes else { return }
        for pair in tables.model.encapsulated.keys where isFurther(pair.own) { encapsulator.setLink(pair, furtherRoute(of: pair) != nil) }
    }

    // MARK: The device

    func readDevice() {
        let alive = device?.readPackets { offload, packet in
            if encapsulator.departs(packet, offload) { return encapsulator.hasRoom }
            hold(packet, offload)
            return true
        }
        encapsulator.flush()
        if alive == false { restoreDevice() }
    }

    /// The socket that packets are to leave by takes no more: they wait in the device's queue, as on any link that is slower than the stack.
    func deviceWaits(_ waits: Bool) {
        guard let device else { return }
        // One that was made anew meanwhile is watched already.
        loop.unwatch(device.descriptor)
        if !waits {
            do throws(KernelError) { try watchDevice(device) } catch { onEvent(.failed(error)) }
        }
    }

    /// A packet without a way is held as its receiver would get it: cut up, and with its sums.
    private func hold(_ packet: UnsafeRawBufferPointer, _ offload: OffloadHeader) {
        guard offload != OffloadHeader() else {
            hold(packet)
            return
        }
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: PacketSegments.octetsMax(of: packet.count, offload), alignment: 8)
        defer { room.deallocate() }
        guard let written = PacketSegments.write(packet, offload, into: room), written.each > 0 else { return }
        for start in stride(from: 0, to: written.octets, by: written.each) {
            hold(UnsafeRawBufferPointer(room).part(start..<min(start + written.each, written.octets)))
        }
    }

    private func hold(_ octets: UnsafeRawBufferPointer) {
        // The kernel's own noise (listener reports, router solicitations) is multicast; nobody waits for an answer.
        guard let packet = HeldPacket(octets), !packet.destination.isMulticast, !packet.destination.isBroadcast, !refusesBound(packet) else { return }
        onEvent(.heldOutbound(packet))
    }
}
