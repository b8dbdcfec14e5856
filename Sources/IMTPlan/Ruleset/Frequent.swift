import MATSignal

// What nearly all plain packets of a host are: datagrams and segments between an own MoA and somebody who is no peer. They are let through by
// rules in front of all others, made of steps that the kernel runs without a call: loads of up to four aligned octets, compares, masks of four
// octets. Each asks just what the rules that it is in front of would ask of such a packet, and comes to the same verdict; whatever it is not sure of (an
// extension header, a port that may be ours, a peer's address) goes on to these. Two calls are left out of one host and into
// another, for the note of a datagram's flow.
//
// Peers are few on nearly all nodes, and then their MoAs stand in these rules, as constants: a look-up costs as much as twenty compares in IPv4,
// as fifty in IPv6. With more of them packets out look among them, by `in_...`, and packets in pass the rules behind, where a peer's are translated first.
extension TranslationRuleset {
    /// Peers' MoAs that rules compare with one by one. So many cost what one look-up costs.
    package static let peerConstantsMax = 16

    /// Own MoAs that are no HoA: nothing that is from or for them is anything but a peer's, or plain.
    private var frequentOwn: [(moa: MobileAddress, home: HomeAddress)] {
        let homes = Set(homesOfPackets)
        guard homeNetworks.isEmpty, familyOwn.count <= Self.ownConstantsMax else { return [] }
        return familyOwn.filter { !homes.contains($0.0.address) }.map { (moa: $0.0, home: $0.1) }
    }

    /// Those of the two chains whose rules in front are others than before.
    func chains(withFrequentOtherThan before: TranslationRuleset) -> [ChainDefinition] {
        (frequentOut == before.frequentOut ? [] : [translate]) + (frequentIn == before.frequentIn ? [] : [deliver])
    }

    /// Out of this host.
    var frequentOut: [[Expression]] {
        frequentOwn.flatMap { moa, home -> [[Expression]] in
            let isPlain = isFrom(moa, among: home)
            let ports: [Expression] = [.load(transport(2, 2), into: afterPair(1)), .load(transport(0, 2), into: afterPair(2))]
            let isNotOurs = needs.otherPorts.map { Expression.compare(afterPair(2), .notEqual, [UInt8($0 >> 8), UInt8(truncatingIfNeeded: $0)]) }
            return [
                isPlain(Self.udp, [.load(transport(0, 1), into: afterPair(1)), .compare(afterPair(1), .notEqual, [0x18])]) + ports + isNotOurs + [
                    .update(
                        .renew, set: Self.plainFlows, setID: Self.plainFlowsID, key: r0, data: nil, timeoutMilliseconds: Self.plainFlowMilliseconds),
                    .verdict(.accept),
                ],
                isPlain(Self.tcp, segmentFlags(.equal, 0, of: 0x07)) + [.verdict(.accept)],
            ]
        }
    }

    /// Into this host.
    var frequentIn: [[Expression]] {
        guard let constants = peerConstants else { return [] }
        return frequentOwn.flatMap { moa, _ -> [[Expression]] in
            func isPlain(_ number: [UInt8]) -> [Expression] {
                isAddress(moa.address, destination, in: r1) + isFrequent(number) + loadInline(source, into: r0)
                    + constants.map { .compare(r0, .notEqual, $0) }
            }
            return [
                isPlain(Self.udp) + [
                    .load(transport(0, 2), into: afterPair(1)), .load(transport(2, 2), into: afterPair(2)),
                    .lookup(set: Self.plainFlows, key: r0, into: nil), .verdict(.accept),
                ],
                isPlain(Self.tcp) + segmentFlags(.notEqual, 0x02, of: 0x16) + [
                    .socketIsWildcard(into: r0), .compare(r0, .equal, [0]), .verdict(.accept),
                ],
            ]
        }
    }

    /// Peers' MoAs, in order; `nil` if they are not so few.
    private var peerConstants: [[UInt8]]? { arrivals.map { all in all.filter { $0.family == family }.sorted().map(\.packetOctets) } }

    /// From this MoA, of this protocol, to no peer; nothing that the agent has released, which may be on its way back into our device. The flow's
    /// addresses, as its answers have them, and the protocol are in their places then.
    private func isFrom(_ moa: MobileAddress, among home: HomeAddress) -> (_ number: [UInt8], _ more: [Expression]) -> [Expression] {
        let isNoPeer: [Expression] = peerConstants.map { $0.map { .compare(r0, .notEqual, $0) } } ?? [.absent(set: Self.into(home), key: r0)]
        let isNotReleased: [Expression] =
            needs.isUntracked
            ? [.meta(.mark, into: afterPair(1)), .compare(afterPair(1), .notEqual, nativeOctets(configuration.releaseMark))] : []
        return { number, more in
            isAddress(moa.address, source, in: r1) + isFrequent(number) + more + loadInline(destination, into: r0) + isNoPeer + isNotReleased
        }
    }

    // MARK: Steps without a call

    private func afterPair(_ place: UInt32) -> Register { Register(2 * words + place) }

    /// The register of an address's last four octets.
    private func last(_ register: Register) -> Register { Register(register.index + words - 1) }

    /// The protocol as the header itself has it; what comes behind an extension header is rare.
    private func isFrequent(_ number: [UInt8]) -> [Expression] {
        [
            .load(HeaderField(base: .network, offset: family == .ipv4 ? 9 : 6, length: 1), into: afterPair(0)),
            .compare(afterPair(0), .equal, number),
        ]
    }

    /// An address, four octets at a time.
    private func loadInline(_ field: HeaderField, into register: Register) -> [Expression] {
        (0..<words).map {
            .load(HeaderField(base: field.base, offset: field.offset + 4 * $0, length: 4), into: Register(register.index + $0))
        }
    }

    /// Likewise, and whether it is this one: its end first.
    private func isAddress(_ address: IPAddress, _ field: HeaderField, in register: Register) -> [Expression] {
        let loads = loadInline(field, into: register)
        guard family == .ipv6, let end = loads.last else { return loads + [.compare(register, .equal, address.packetOctets)] }
        return [end, .compare(last(register), .equal, Array(address.packetOctets.suffix(4)))] + loads.dropLast()
            + [.compare(register, .equal, address.packetOctets)]
    }

    /// TCP's flags, among the four octets from the header's length on.
    private func segmentFlags(_ comparison: Comparison, _ value: UInt8, of mask: UInt8) -> [Expression] {
        [
            .load(transport(12, 4), into: afterPair(1)), .mask(afterPair(1), [0, mask, 0, 0]),
            .compare(afterPair(1), comparison, [0, value, 0, 0]),
        ]
    }
}
