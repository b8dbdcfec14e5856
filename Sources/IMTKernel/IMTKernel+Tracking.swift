import IMTPlan
import MATRuntime
import MATSignal

// Connection tracking and IPsec: what other software on the host makes of mapped packets.
//
// The kernel tracks connections as soon as any table asks for it, and then those of every packet. Mapped packets need it only for a
// host firewall that asks for their state; so without one they are kept out of it, and our own source NAT is not even installed
// before there is a packet that it is for.
extension IMTKernel {
    /// Looks who else filters on this host, and makes the tables fit.
    func reviewTracking() {
        do throws(KernelError) {
            var needs = tables.needs
            needs.exemptsIPsec = try policies?.exist() ?? false
            switch configuration.connectionTracking {
            case .always: needs.translatesSources = configuration.traffic != .nothing
            case .auto, .never: break
            }
            // Forwarded packets go out by the main table once their destination is known as plain, and do not ask first.
            if !configuration.homePrefixes.isEmpty { needs.translatesSources = configuration.traffic != .nothing }
            needs.sparesTracking = try sparesTracking(needs)
            try tables.set(needs: needs)
        } catch {
            onEvent(.failed(error))
        }
    }

    private func sparesTracking(_ needs: TranslationNeeds) throws(KernelError) -> Bool {
        // Without source NAT of ours and rules of others nobody has asked the kernel to track anything, and there is nothing to be
        // spared from.
        let othersFilter = try tables.othersFilter()
        return switch configuration.connectionTracking {
        case .always: false
        case .never: needs.translatesSources || othersFilter
        // Of forwarded packets those that leave would be tracked all the same, and the answers not.
        case .auto: needs.translatesSources && !othersFilter && configuration.homePrefixes.isEmpty
        }
    }

    /// A packet from a HoA of ours that goes to somebody plain: source NAT is needed from now on.
    func needSourceTranslation(for packet: HeldPacket) {
        guard configuration.traffic != .nothing, !tables.needs.translatesSources, tables.model.homes.contains(packet.source) else { return }
        do throws(KernelError) {
            var needs = tables.needs
            needs.translatesSources = true
            needs.sparesTracking = try sparesTracking(needs)
            try tables.set(needs: needs)
        } catch {
            onEvent(.failed(error))
        }
    }

    /// Has connection tracking forget the flow of a packet that is for source NAT and was refused.
    /// - Returns: whether there was one.
    func forgetTracking(of packet: HeldPacket) -> Bool {
        let isOurs = tables.model.homes.contains(packet.source) || configuration.homePrefixes.contains { $0.contains(packet.source) }
        guard isOurs, tables.needs.translatesSources, !hasEntry(for: packet.destination) else { return false }
        do throws(KernelError) { return try trackedFlows.forget(packet) } catch {
            failOnce(error, .tracking)
            return false
        }
    }

    /// What NFLOG brings.
    func held(_ packet: HeldPacket, _ kind: CopyReason) {
        switch kind {
        case .opener, .held: onEvent(.heldInbound(packet))
        // The reset's destination is the segment's source.
        case .reset: onEvent(.resetHeld(from: packet.destination, to: packet.source))
        case .forwarded: onEvent(.heldOutbound(packet))
        case .leaving:
            // On a wrong way, or on its way with a wrong source: to be found out about like any other.
            guard tables.model.forgotten[packet.destination] == nil, !tables.needs.translatesSources else { return onEvent(.heldOutbound(packet)) }
            needSourceTranslation(for: packet)
            guard tables.needs.translatesSources else { return onEvent(.heldOutbound(packet)) }
            releaseOutbound(packet)
        }
    }
}
