import IMTPlan
import MATRuntime
import MATSignal

// Connection tracking and IPsec: what other software on the host makes of mapped packets. What follows from it is `TranslationNeeds`'s.
extension IMTKernel {
    /// Looks who else filters on this host, and makes the tables fit.
    func reviewTracking() {
        do throws(KernelError) {
            let hasLegacyTables = tables.hasLegacyTables
            let hasPolicies = try policies?.exist() ?? false
            var needs = tables.needs.reviewed(configuration, othersFilter: try tables.othersFilter(), hasPolicies: hasPolicies)
            needs.encapsulates = needs.encapsulates || !tables.model.encapsulated.isEmpty
            try tables.set(needs: needs)
            rewritingChanged()
            hadLegacyTables = hasLegacyTables
        } catch {
            hadLegacyTables = nil
            onEvent(.failed(error))
        }
    }

    /// How long the rules for packets in datagrams stay after the last such peer: longer than a move between networks that translate.
    private static let encapsulationKept = Duration.seconds(60)

    /// The first peer's packets travel in datagrams from now on, or the last one's no more.
    func reviewEncapsulation() {
        if tables.model.encapsulated.isEmpty {
            guard tables.needs.encapsulates, deadlines[.encapsulation] == nil else { return }
            return wait(for: .encapsulation, until: SystemClock.now().monotonic + Self.encapsulationKept)
        }
        wait(for: .encapsulation, until: nil)
        if !tables.needs.encapsulates { setEncapsulates(true) }
    }

    /// No peer's packets have travelled in datagrams for a while: nobody's packets are asked about it any more.
    func endEncapsulation() { if tables.model.encapsulated.isEmpty { setEncapsulates(false) } }

    private func setEncapsulates(_ isOn: Bool) {
        var needs = tables.needs
        needs.encapsulates = isOn
        do throws(KernelError) { try tables.set(needs: needs) } catch { onEvent(.failed(error)) }
    }

    /// Of all else that matters here the kernel tells. What it refused is tried again.
    func reviewLegacyTables() {
        if tables.hasLegacyTables != hadLegacyTables { reviewTracking() }
    }

    /// A packet from a HoA of ours that goes to somebody plain: source NAT is needed from now on.
    func needSourceTranslation(for packet: HeldPacket) {
        guard capturesForPrograms, !tables.needs.translatesSources, tables.model.homes.contains(packet.source) else { return }
        do throws(KernelError) {
            try tables.set(needs: tables.needs.translatingSources(configuration, othersFilter: try tables.othersFilter()))
        } catch {
            onEvent(.failed(error))
        }
    }

    /// How long after the last program's end, and how often from then on, its sockets are asked whether they have something to say still.
    private static let lastWords = Duration.seconds(2)

    /// Source NAT that only single programs needed has the kernel track all connections of the host; so it goes when they have gone.
    func awaitLastWords() {
        guard isForNobody else { return }
        wait(for: .lastWords, until: SystemClock.now().monotonic + Self.lastWords)
    }

    private var isForNobody: Bool { tables.needs.isForPrograms(configuration) && !capturesForPrograms && !reassembles }

    /// A program that ended may have left a socket that is still sending, or given it to another one.
    func endSourceTranslation() {
        guard isForNobody else { return }
        do throws(KernelError) {
            let pattern = programs.pattern
            let left = try socketSearch?.sockets(marked: pattern.mark, mask: pattern.mask) ?? []
            guard left.allSatisfy({ programs.via(of: $0.mark) == .plain }) else { return awaitLastWords() }
            try tables.set(needs: tables.needs.leavingSources(configuration, othersFilter: try tables.othersFilter()))
        } catch {
            onEvent(.failed(error))
        }
    }

    /// Datagrams that packets travel in are cut up on their way: connection tracking, which source NAT brings, puts them together before the rules
    /// look at them; the later pieces show no port, and would be held like what strangers send.
    func needReassembly(for changes: [IMTChange]) {
        let isCutUp = changes.contains { change in
            guard case .setOutbound(_, let carriage) = change else { return false }
            return carriage.way.endpoints != nil && carriage.largest < Carriage.mtuAtFirst
        }
        if isCutUp { reassembles = true }
        guard isCutUp, !tables.needs.translatesSources else { return }
        do throws(KernelError) {
            try tables.set(needs: tables.needs.translatingSources(configuration, othersFilter: try tables.othersFilter()))
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

    /// What NFLOG brings, in order. Packets of unknown sources go up together where nothing else came between: in a flood they are many.
    func held(_ copies: [HoldListener.Copy]) {
        var inbound: [HeldPacket] = []
        func tellInbound() {
            if !inbound.isEmpty { onEvent(.heldInbound(inbound)) }
            inbound = []
        }
        for (reason, packet) in copies {
            if reason != .opener, reason != .held { tellInbound() }
            switch reason {
            case .opener, .held: inbound.append(packet)
            case .used: onEvent(.used)
            // The reset's destination is the segment's source.
            case .reset: onEvent(.resetHeld(from: packet.destination, to: packet.source))
            case .forwarded, .begins: onEvent(.heldOutbound(packet))
            case .leaving: leaving(packet)
            }
        }
        tellInbound()
    }

    /// On a wrong way, or on its way with a wrong source: to be found out about like any other.
    private func leaving(_ packet: HeldPacket) {
        guard tables.model.forgotten[packet.destination] == nil, !tables.needs.translatesSources else { return onEvent(.heldOutbound(packet)) }
        needSourceTranslation(for: packet)
        guard tables.needs.translatesSources else { return onEvent(.heldOutbound(packet)) }
        releaseOutbound(packet)
    }
}
