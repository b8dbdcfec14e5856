import IMTPlan
import MATCore
import MATRuntime
import MATSignal

// Programs that bind their sockets to our device (SO_BINDTODEVICE). What they send comes here whatever its route, and they take nothing that did not come
// by it. So they have what is encapsulated, and of what comes by another link no answer: that is not sent, and they are told at once.
extension IMTKernel {
    /// Packets of which the kernel is asked, each second.
    static let boundPerSecondMax = 100
    /// A packet's time in the device's queue: what comes out of it so soon after routes were written may have been sent before.
    static let queuedMax = Duration.seconds(1)

    /// Answers a packet in the device's queue with an error if the answers to it would come by another link than its socket takes them from.
    ///
    /// - Returns: whether that is all there is to be done about it.
    func refusesBound(_ packet: HeldPacket) -> Bool {
        guard let device, let socketSearch, isWayElsewhere(packet), boundRate.take(at: SystemClock.now().monotonic) else { return false }
        do throws(KernelError) {
            if packet.protocolNumber == 6 || packet.protocolNumber == 17 {
                guard try socketSearch.link(ofSocketOf: packet, device: device.index) == device.index else { return false }
                refuse(packet, device)
                return true
            }
            // Nobody tells of other sockets. One that is bound to nothing may have sent this when its packets had no way but this one: the peer was not known
            // yet, or a move was written.
            guard packet.opensConnection, !areRoutesNew else { return false }
            let route = try routes.lookUp(packet.destination, from: packet.source, mark: 0, names: [device.index: device.name])
            if route.failure == nil, route.interface != device.name { refuse(packet, device) }
        } catch {
            // The kernel can't say, and the packet waits as any.
        }
        return false
    }

    /// Its destination is reached by a link of its own, with its addresses rewritten or plainly.
    private func isWayElsewhere(_ packet: HeldPacket) -> Bool {
        let network = configuration.homePrefixes.first { $0.contains(packet.source) }
        let pair = HomePair(own: HomeAddress(network?.address ?? packet.source), peer: HomeAddress(packet.destination))
        guard pair.own.family == pair.peer.family else { return false }
        if let carriage = tables.model.carriage(pair) { return carriage.way.endpoints == nil }
        return tables.model.plain.contains(packet.destination)
    }

    private var areRoutesNew: Bool { routes.writtenAt.map { SystemClock.now().monotonic < $0 + Self.queuedMax } ?? false }

    private func refuse(_ packet: HeldPacket, _ device: TunnelDevice) {
        guard let answer = UnreachableAnswer.answer(to: packet) else { return }
        if !hasToldOfBound {
            hasToldOfBound = true
            onEvent(
                .warning(
                    "a program binds its socket to \(device.name) and sends to \(packet.destination), whose packets go by another link: it could not hear "
                        + "the answers, so it is told that the destination is unreachable; it is to bind to the address \(packet.source) instead"))
        }
        do throws(KernelError) { try device.deliver(answer) } catch { onEvent(.failed(error)) }
    }
}
