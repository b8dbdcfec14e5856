/// One promise, what was measured, and whether it held.
public struct Judgement: Equatable, Sendable {
    public var held: Bool
    public var text: String
}

extension ProbeReport {
    /// With overlap nobody may notice more than this.
    static let overlapGapMillisecondsMax = 20.0
    /// Behind translators.
    static let overlapGapTranslatedMillisecondsMax = 100.0
    /// Without overlap: this, and one and a half round trips, from the moment the new address is usable.
    static let resume = (milliseconds: 50.0, roundTrips: 1.5)
    /// Behind a translator, also if the peer is behind another: its server tells both, and each shows the other that it is there.
    static let resumeTranslated = (milliseconds: 250.0, roundTrips: 4.5)

    /// A handover: from one `begin` event to the next, or to the end.
    struct Phase {
        var begin: ProbeEvent
        var until: Nanoseconds
        func contains(_ time: Nanoseconds) -> Bool { time >= begin.time && time < until }
    }

    var phases: [Phase] {
        let begins = events.filter { $0.event == "begin" }
        return begins.indices.map { index in
            Phase(begin: begins[index], until: index + 1 < begins.count ? begins[index + 1].time : .max)
        }
    }

    public func judgements() -> [Judgement] {
        var result: [Judgement] = []
        for phase in phases {
            switch phase.begin.expect {
            case .overlap: result += directions.map { overlap($0, phase, Self.overlapGapMillisecondsMax) }
            case .overlapTranslated: result += directions.map { overlap($0, phase, Self.overlapGapTranslatedMillisecondsMax) }
            case .interruption: result += directions.map { interruption($0, phase, Self.resume) }
            case .interruptionTranslated: result += directions.map { interruption($0, phase, Self.resumeTranslated) }
            case nil: continue
            }
        }
        for transfer in transfers {
            let header = transfer.log.header
            let octets = "\(fixed(Double(header.octets) / 1e6, 1)) MB"
            result.append(
                Judgement(
                    held: header.isComplete && !header.isReset,
                    text: "TCP \(transfer.title): "
                        + (header.isReset
                            ? "connection reset after \(octets)"
                            : header.isComplete ? "not reset, all \(octets) arrived" : "broken after \(octets): \(header.failure ?? "unknown")")))
        }
        return result
    }

    private func overlap(_ direction: Direction, _ phase: Phase, _ gapMillisecondsMax: Double) -> Judgement {
        let lost = losses(direction).filter(phase.contains).count
        let gaps = gaps(direction, over: 0).filter { phase.contains($0.to) }
        let largest = gaps.map(\.networkMilliseconds).max() ?? .infinity
        let seen = gaps.map(\.milliseconds).max() ?? .infinity
        let isSilent = gaps.isEmpty
        var text = "\(phase.begin.text), \(direction.title): "
        text += isSilent ? "nothing arrived" : "\(lost) lost, longest gap \(fixed(largest, 1)) ms"
        if !isSilent, seen - largest > 1 { text += " (\(fixed(seen, 1)) ms with the sender's own delay)" }
        text += " (allowed: 0, \(fixed(gapMillisecondsMax, 0)) ms)"
        return Judgement(held: !isSilent && lost == 0 && largest <= gapMillisecondsMax, text: text)
    }

    private func interruption(_ direction: Direction, _ phase: Phase, _ bound: (milliseconds: Double, roundTrips: Double)) -> Judgement {
        let what = "\(phase.begin.text), \(direction.title): "
        guard let usable = usable(direction.family, phase) else {
            return Judgement(held: false, text: what + "no new \(direction.family.title) address with a route came into use")
        }
        guard let first = direction.log.receptions.first(where: { $0.received >= usable && phase.contains($0.received) }) else {
            return Judgement(held: false, text: what + "traffic did not resume")
        }
        let took = Double(first.received - usable) / 1e6
        let allowed = bound.roundTrips * Double(roundTrip(direction.family)) / 1e6 + bound.milliseconds
        return Judgement(
            held: took <= allowed,
            text: what + "resumed \(fixed(took, 1)) ms after the new address was usable (allowed: \(fixed(allowed, 1)) ms)")
    }

    /// When a phase's new network could carry traffic of a family: it has both an address and a default route by then, on the
    /// interface that got its address last.
    func usable(_ family: AddressFamily, _ phase: Phase) -> Nanoseconds? {
        let own = events.filter { phase.contains($0.time) && $0.family == family }
        guard let address = own.first(where: { $0.event == "address" && isNetwork($0) }) else { return nil }
        guard let route = own.first(where: { $0.event == "route" && $0.interface == address.interface }) else { return nil }
        return max(address.time, route.time)
    }

    /// The agent's own TUN device gets addresses too, and carries no network.
    private func isNetwork(_ event: ProbeEvent) -> Bool { event.interface?.hasPrefix("mat") == false && event.interface != "lo" }
}
