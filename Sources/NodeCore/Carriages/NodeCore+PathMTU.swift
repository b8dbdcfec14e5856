import IMTPlan
import MATCore
import MATSignal

// How large packets in datagrams may be, and whether the datagrams need sums: `PathMTUs` says what to ask and what follows, probes within the path
// ask it.

extension NodeCore {
    /// The largest packet for a path that a peer's packets take, or would.
    func largest(of hoa: HomeAddress, over way: Carriage.Way, _ now: Now) -> UInt32 {
        if let fixed = configuration.mtu { return fixed }
        return pathMTUs.largest(Self.key(of: hoa, way), of: hoa, now.monotonic) ?? Carriage.mtuAtFirst
    }

    /// Whether the datagrams of such a path have to have a sum.
    func needsSum(_ hoa: HomeAddress, over way: Carriage.Way, _ now: Now) -> Bool {
        way.endpoints != nil && pathMTUs.needsSum(Self.key(of: hoa, way), of: hoa, now.monotonic)
    }

    private static func key(of hoa: HomeAddress, _ way: Carriage.Way) -> PathMTUs.Key {
        let (own, far) = way.endpoints ?? (Endpoint(way.own.address, port: SignalPort.node), Endpoint(way.destination, port: SignalPort.node))
        if case .relayed = way { return PathMTUs.Key(own: own, far: far, peer: hoa) }
        return PathMTUs.Key(own: own, far: far, peer: nil)
    }

    /// A peer's packets go over this path now; `nil`: over none that adds anything to them.
    mutating func usePathMTU(of hoa: HomeAddress, over way: Carriage.Way?, _ now: Now) {
        guard let way, way.endpoints != nil else { return pathMTUs.remove(hoa) }
        perform(pathMTUs.use(Self.key(of: hoa, way), by: hoa, packets: peers[hoa]?.packets ?? 0, now.monotonic), now)
    }

    /// Something other than an answer says that full packets to a peer may be lost.
    mutating func doubtPathMTU(of hoa: HomeAddress, _ now: Now) { perform(pathMTUs.doubt(hoa, now.monotonic), now) }

    /// The network, or this host, says that a datagram was too large. Anybody can say so; it is believed as far as to ask (section 11.2).
    public mutating func datagramFailed(_ error: DatagramError, now: Now) -> [NodeAction] {
        if error.isTooLarge, let hoa = error.pair?.peer, let key = pathMTUs.key(of: hoa), key.far == error.far, key.own.port == error.port,
            let size = pathMTUs[key]?.largest
        {
            let overhead = Carriage.Way.encapsulated(own: key.own, peer: key.far).overhead
            // A probe may have asked for more than passes.
            if error.largest < size + overhead { doubtPathMTU(of: hoa, now) }
        }
        return endEvent()
    }

    mutating func pathMTUDue(_ now: Now) { perform(pathMTUs.takeDue(now.monotonic), now) }

    /// A probe in a datagram without a sum was answered, or the one beside it.
    mutating func sumAnswered(_ probe: InPathProbes.Probe, _ now: Now) {
        let hadSum = probe.purpose == .withSum
        perform(pathMTUs.sumAnswered(hadSum: hadSum, by: probe.hoa, from: probe.own, to: probe.far, now.monotonic), now)
    }

    /// A probe of a size was answered; 0: the small one that goes behind each.
    mutating func sizeAnswered(_ size: UInt32, _ probe: InPathProbes.Probe, _ now: Now) {
        perform(
            pathMTUs.answered(size, by: probe.hoa, from: probe.own, to: probe.far, sentAt: probe.sentAt, now.monotonic), now)
    }

    /// What is known of the size of a peer's packets in datagrams, for people; empty if they take no such path.
    func sizeText(of hoa: HomeAddress) -> String {
        guard let key = pathMTUs.key(of: hoa), let mtu = pathMTUs[key] else { return "" }
        return sizeText(mtu) + (pathMTUs.losesWithoutSum(key) ? "; datagrams without a UDP sum do not arrive, so the agent sends them all" : "")
    }

    private func sizeText(_ mtu: PathMTU) -> String {
        if let fixed = configuration.mtu { return "; packets of up to \(fixed) octets, as configured" }
        guard mtu.largest >= Carriage.mtuAtFirst else { return "; so narrow that packets of \(Carriage.mtuAtFirst) octets are cut up" }
        return "; packets of up to \(mtu.largest) octets\(mtu.failed.map { ", \($0) do not pass" } ?? "")\(mtu.isTrying ? ", being tried" : "")"
    }

    private mutating func perform(_ actions: [PathMTUs.Action], _ now: Now) {
        for action in actions {
            switch action {
            case .ask(let hoa, let key, let size):
                for (size, octets) in [(size, Int(size)), (0, nil)] as [(UInt32, Int?)] {
                    probeInPath(hoa, from: key.own, to: key.far, for: .size(size), octets: octets, wait: PathMTU.answerMax * 3, now)
                }
            case .askWithoutSum(let hoa, let key):
                for purpose in [.noSum, .withSum] as [InPathProbes.Purpose] {
                    probeInPath(hoa, from: key.own, to: key.far, for: purpose, wait: OuterSum.answerMax, now)
                }
            case .sumsChanged(let peers, let key, let isNeeded):
                if isNeeded { log(.info, "datagrams without a UDP sum to \(key.far) are not answered: they get one, by the agent") }
                for hoa in peers { applyPeer(hoa, now) }
            case .changed(let peers):
                for hoa in peers { applyPeer(hoa, now) }
            }
        }
    }
}
