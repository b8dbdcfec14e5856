import MATSignal

/// The tables `ip mat` and `ip6 mat`: what a packet meets on its way.
///
///     from a local socket                                    from the network
///     output -310      hold        to mat0: untracked        prerouting -310  deliver   mapped: addresses become HoAs
///     (routing by HoA)                                        |               stranger  to a MoA, not mapped: claimed by a
///     postrouting 100  source_nat  plain, from a HoA          |                         socket, known plain, or held
///     postrouting 310  translate   mapped: become MoAs       (conntrack, local delivery)
///
/// A mobile router's hosts: their packets pass `translate` and `deliver` like its own, and between them
///
///     forward 300      hold_forwarded   to mat0: copied to the agent, and untracked because dropped
///
/// Their addresses are translated by rules that name the home prefix and the MoPre, whose bits the kernel can exchange as
/// constants: whatever their number and the prefix's length, no map has an entry for any of them. A host behind another's router
/// is a peer like any other, with an entry of its own: the look-up stays one of a whole address.
///
/// Why translation leaves in postrouting and enters in prerouting, outside of conntrack on both sides: conntrack, source NAT
/// and a host's own firewall then see one conversation between HoAs, the same before and after every handover. Translated in
/// the output hook, a connection would go out between MoAs and come back between HoAs: to conntrack, two halves that never
/// meet, and `ct state established` would not match the answers.
///
/// The IMT is maps of peers, and rules that know what is the node's own. A packet leaves by a path's rule (own HoA to own MoA)
/// and map `outN` (peer HoA : peer MoA), and arrives by `own` (own MoA : own HoA) and the HoA's map `in_...` (peer MoA : peer
/// HoA). What belongs to a peer and what belongs to the node are kept apart, so that a node that moves replaces one rule and
/// one element, whatever the number of its peers; and still each peer can be sent to from another MoA (a path of its own), and
/// a packet is translated at both ends or not at all.
///
/// Keys are single addresses, read from the packet, never results of another look-up: they hash fastest (the kernel has a special
/// case for four octets), and `nft list` (1.0.6) aborts at a look-up of a look-up's result.
///
/// What goes wrong goes into the agent's hands, not to somebody else, whatever the agent knows by then. At either end one more
/// question is asked of what no rule has taken:
///
///     deliver    for an own MoA that went away and is back: translated, as ever           (`retired`, chain `returned`)
///                for another address that the agent has seen                              (`known`)
///                for any other that is this host's by now: questioned like an own MoA's   (chain `stranger`)
///     translate  from a HoA to a HoA whose entry was given up, and not into our device: copied to the agent, dropped (`forgotten`)
///
/// Where the kernel can (`TableProtection`), the tables are the agent's own and outlive it: others can't flush them.
/// Elsewhere what others remove is found and put back.
struct TranslationRuleset {
    static let tableName = "mat"
    /// Peers' entries; a node's own bound (`NodeCoreConfiguration.peersMax`) lies below it.
    static let peersMax: UInt32 = 131_072
    /// A peer may have several MoAs, and packets from all of them are accepted.
    static let arrivalsMax: UInt32 = 262_144
    static let pathsMax: UInt32 = 64
    static let plainSourcesMax: UInt32 = 16_384
    static let locatorsMax: UInt32 = 256
    /// Own MoAs that went away.
    static let retiredMax: UInt32 = 64
    /// This host's addresses, of each family. Those beyond are questioned like MoAs.
    static let knownMax: UInt32 = 4096
    static let forgottenMax: UInt32 = 16_384
    static let plainFlowsMax: UInt32 = 32_768
    /// How long an untranslated flow that this host began may pause before its answers count as new.
    static let plainFlowMilliseconds: UInt64 = 180_000
    /// Likewise for a peer to whose MoA such a flow began, and for its TCP connections until they end. Longer than the usual
    /// keep-alive of two hours (RFC 5382, REQ-5), because what comes for a forgotten connection would be translated and reset it.
    static let plainPeerMilliseconds: UInt64 = 7_440_000
    static let plainConnectionMilliseconds: UInt64 = 432_000_000
    /// From an end of a connection's FIN or RST on: it may speak on in the other direction. A connection that begins meanwhile with the same
    /// ports, between HoAs, ends it (`plain_ends`).
    static let plainEndMilliseconds: UInt64 = 600_000

    static let paths = "paths", own = "own", homes = "homes", mapped = "mapped", plainSources = "plain_sources"
    static let retired = "retired", known = "known", forgotten = "forgotten"
    static let plainPeers = "plain_peers", plainFlows = "plain_flows", peerFlows = "peer_flows", plainEnds = "plain_ends"
    static let alwaysPlainChain = "always_plain", sourceNAT = "source_nat"

    static func out(_ path: UInt32) -> String { "out\(path)" }
    /// nft's names have letters, digits, dots and underscores.
    static func into(_ own: HomeAddress) -> String { name("in", own.address) }
    static func begun(_ own: MobileAddress) -> String { name("begun", own.address) }
    private static func name(_ prefix: String, _ address: IPAddress) -> String {
        prefix + "_" + address.description.split(separator: ":", omittingEmptySubsequences: false).joined(separator: "_")
    }

    /// Whether the agent decides what is in a set, rather than packets.
    static func isDecided(_ set: String) -> Bool {
        ![plainPeers, plainFlows, peerFlows, plainEnds, plainConnections, published, waiting, lately, notFound, confirming].contains(set)
    }

    let isIPv4: Bool
    let configuration: IMTConfiguration
    var needs = TranslationNeeds()
    /// By number, all families'.
    var paths: [UInt32: DeparturePath] = [:]
    /// The own MoAs of all families.
    var own: [MobileAddress: HomeAddress] = [:]
    var retired: [MobileAddress: HomeAddress] = [:]

    /// A family without a HoA has nothing to translate, and its packets meet no hook of ours.
    var isWithoutHome: Bool { homeAddresses.isEmpty }
    private var homeAddresses: [HomeAddress] { configuration.homeAddresses.filter { $0.isIPv4 == isIPv4 } }
    private var familyPaths: [(number: UInt32, path: DeparturePath)] {
        paths.filter { $0.value.moa.isIPv4 == isIPv4 }.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    var table: TableDefinition { TableDefinition(isIPv4: isIPv4, name: Self.tableName, sets: sets, chains: chains) }

    // MARK: Sets

    private static let plainEndsID: UInt32 = 103

    var width: UInt32 { isIPv4 ? 4 : 16 }
    /// nft's type numbers: ipv4_addr 7, ipv6_addr 8, inet_proto 12, inet_service 13, mark 19.
    var addressType: UInt32 { isIPv4 ? 7 : 8 }
    private var markType: UInt32 { 19 }
    var pairType: UInt32 { addressType << 6 | addressType }

    private var sets: [SetDefinition] {
        // What each path is. No packet looks here: it is what the next agent learns of them after a crash.
        let paths = SetDefinition(
            name: Self.paths, flags: SetDefinition.mapFlag, identifier: 8, keyType: markType, keyBytes: 4, dataType: pairType,
            dataBytes: 2 * width, size: Self.pathsMax)
        let own = SetDefinition(
            name: Self.own, flags: SetDefinition.mapFlag, identifier: 3, keyType: addressType, keyBytes: width,
            dataType: addressType, dataBytes: width, size: Self.locatorsMax)
        let addresses = SetDefinition(
            name: Self.homes, flags: 0, identifier: 4, keyType: addressType, keyBytes: width, size: Self.locatorsMax)
        let homes = addresses
        // Own HoA and peer's of every entry, for rules that only want to know: a look-up in a path's map would count as a packet sent.
        let mapped = SetDefinition(
            name: Self.mapped, flags: 0, identifier: 15, keyType: pairType, keyBytes: 2 * width, size: Self.peersMax)
        var returning = own
        (returning.name, returning.identifier, returning.size) = (Self.retired, 100, Self.retiredMax)
        var known = addresses
        (known.name, known.identifier, known.size) = (Self.known, 101, Self.knownMax)
        var forgotten = addresses
        (forgotten.name, forgotten.identifier, forgotten.size) = (Self.forgotten, 102, Self.forgottenMax)
        var plain = addresses
        plain.name = Self.plainSources
        plain.identifier = 5
        plain.size = Self.plainSourcesMax
        // Flows that this host began untranslated, as their answers will look: those to others, by their addresses, ...
        let flows = flows(Self.plainFlows, identifier: 7, size: Self.plainFlowsMax)
        // ... and those to peers' MoAs, by the peers' HoA, with the MoAs that they began between: either side may move meanwhile,
        // and its answers come between other MoAs then.
        let peers = SetDefinition(
            name: Self.plainPeers, flags: SetDefinition.dynamicFlags, identifier: 6, keyType: addressType, keyBytes: width,
            size: Self.plainFlowsMax)
        let peerFlows = SetDefinition(
            name: Self.peerFlows, flags: SetDefinition.dynamicMapFlags, identifier: 9,
            keyType: addressType << 18 | 12 << 12 | 13 << 6 | 13, keyBytes: width + 12, dataType: pairType, dataBytes: 2 * width,
            size: Self.plainFlowsMax)
        // Those of them that have seen a FIN or RST: their ports may be another connection's by now.
        let ends = SetDefinition(
            name: Self.plainEnds, flags: SetDefinition.dynamicFlags, identifier: Self.plainEndsID, keyType: peerFlows.keyType,
            keyBytes: peerFlows.keyBytes, size: Self.plainFlowsMax)
        return [paths, own, homes, mapped, returning, known, forgotten, plain, peers, flows, peerFlows, ends] + strangerSets + homeAddresses.enumerated().map { into($1, identifier: 16 + UInt32($0)) }
            + familyPaths.map { out($0.number) }
    }

    /// The peers of one path.
    func out(_ path: UInt32) -> SetDefinition {
        SetDefinition(
            name: Self.out(path), flags: SetDefinition.mapFlag, identifier: 128 + path, keyType: addressType, keyBytes: width,
            dataType: addressType, dataBytes: width, size: Self.peersMax, counts: true)
    }

    private func into(_ own: HomeAddress, identifier: UInt32) -> SetDefinition {
        SetDefinition(
            name: Self.into(own), flags: SetDefinition.mapFlag, identifier: identifier, keyType: addressType, keyBytes: width,
            dataType: addressType, dataBytes: width, size: Self.arrivalsMax, counts: true)
    }

    // MARK: Header fields

    /// Source and destination are adjacent in both families' headers, so a pair is one load and one write.
    var pair: HeaderField { HeaderField(base: .network, offset: isIPv4 ? 12 : 8, length: 2 * width) }
    var source: HeaderField { HeaderField(base: .network, offset: isIPv4 ? 12 : 8, length: width) }
    var destination: HeaderField { HeaderField(base: .network, offset: isIPv4 ? 16 : 24, length: width) }
    // An ICMP error quotes the packet it is about after eight octets of its own.
    private var quotedSource: HeaderField { HeaderField(base: .transport, offset: 8 + source.offset, length: width) }
    private var quotedDestination: HeaderField { HeaderField(base: .transport, offset: 8 + destination.offset, length: width) }
    private var quotedProtocol: HeaderField { HeaderField(base: .transport, offset: isIPv4 ? 17 : 14, length: 1) }
    private var quotedPorts: UInt32 { isIPv4 ? 28 : 48 }
    func transport(_ offset: UInt32, _ length: UInt32) -> HeaderField {
        HeaderField(base: .transport, offset: offset, length: length)
    }

    private var outerChecksum: ChecksumRepair { isIPv4 ? .internet(offset: 10, pseudoHeader: true) : .pseudoHeader }
    /// For packets that come in. A card or tunnel may have summed them up already (CHECKSUM_COMPLETE), and the kernel changes that
    /// sum as if the header summed up to the same as before. IPv4's does, by its own checksum; in IPv6 the flow label's last
    /// 16 bits, which have no use any more, are made to absorb the change. Otherwise the stack drops the packet as damaged.
    private var arrivingChecksum: ChecksumRepair { .internet(offset: isIPv4 ? 10 : 2, pseudoHeader: true) }
    /// IPv4: the quoted header's own checksum; what changes in both cancels out in the ICMP checksum. ICMPv6 covers the quote.
    private var quotedChecksum: ChecksumRepair { .internet(offset: isIPv4 ? 18 : 2, pseudoHeader: false) }

    // MARK: Registers: an address takes one (IPv4) or four (IPv6)

    var words: UInt32 { width / 4 }
    let r0 = Register(0)
    var r1: Register { Register(words) }
    private var r2: Register { Register(2 * words) }
    /// Room for a second pair beside the first.
    private var second: Register { Register(2 * words) }
    private var secondEnd: Register { Register(3 * words) }
    static let udp: [UInt8] = [17], tcp: [UInt8] = [6]
    var icmp: [UInt8] { isIPv4 ? [1] : [58] }
    var echoRequest: [UInt8] { isIPv4 ? [8] : [128] }
    var echoReply: [UInt8] { isIPv4 ? [0] : [129] }

    func isProtocol(_ number: [UInt8]) -> [Expression] {
        [.meta(.protocolNumber, into: r0), .compare(r0, .equal, number)]
    }
    func isType(_ type: [UInt8], _ comparison: Comparison = .equal) -> [Expression] {
        [.load(transport(0, 1), into: r0), .compare(r0, comparison, type)]
    }
    /// IPv4: anything but echo; only errors and redirects quote, and what else there is finds no entry. ICMPv6: types under 128.
    private var isError: [Expression] {
        // IPv4: the header's own octet, which is loaded without a call. IPv6: behind extension headers too.
        let isICMP: [Expression] =
            isIPv4 ? [.load(HeaderField(base: .network, offset: 9, length: 1), into: r0), .compare(r0, .equal, icmp)] : isProtocol(icmp)
        return isICMP + (isIPv4 ? isType([0], .notEqual) + isType([8], .notEqual) : isType([128], .less))
    }
    func isInterface(
        _ key: MetaKey, _ name: String, _ comparison: Comparison = .equal, in register: Register = Register(0)
    ) -> [Expression] {
        let octets = Array(name.utf8.prefix(15))
        return [
            .meta(key, into: register), .compare(register, comparison, octets + [UInt8](repeating: 0, count: 16 - octets.count)),
        ]
    }

    /// UDP with both ports in {6288, 6289}. The first octet settles it for nearly all packets, and loads and compares of so few
    /// octets are the cheapest steps there are.
    private var isSignalling: [Expression] {
        [
            .load(transport(0, 1), into: r0), .compare(r0, .equal, [0x18]),
            .load(transport(0, 4), into: r0), .mask(r0, [0xFF, 0xFE, 0xFF, 0xFE]),
            .compare(r0, .equal, [0x18, 0x90, 0x18, 0x90]),
        ] + isProtocol(Self.udp)
    }

    /// Loads source and destination into `r0` and `r1`.
    private var loadPair: [Expression] {
        // Two loads of four octets are faster than one of eight: the kernel runs them without a call.
        isIPv4 ? [.load(source, into: r0), .load(destination, into: r1)] : [.load(pair, into: r0)]
    }

    private func octets(_ address: IPAddress) -> [UInt8] { Array(address.octets.suffix(Int(width))) }
    /// The bits of a prefix of this length (16-octet form), and the others.
    private func mask(_ length: UInt8) -> [UInt8] { octets(IPAddress(high: .max, low: .max).masked(to: length)) }
    private func rest(_ length: UInt8) -> [UInt8] { mask(length).map { ~$0 } }

    /// Loads an address; ends the rule unless the prefix covers it.
    private func isWithin(_ prefix: IPPrefix, _ field: HeaderField, in register: Register) -> [Expression] {
        [.load(field, into: register), .mask(register, mask(prefix.length)), .compare(register, .equal, octets(prefix.address))]
    }

    /// Loads an address of one prefix as the address of another of the same length: the leading bits are constants.
    private func load(_ field: HeaderField, as base: IPAddress, _ length: UInt8, into register: Register) -> [Expression] {
        [.load(field, into: register), .mask(register, rest(length), turning: octets(base))]
    }

    /// How packets reach an own HoA: at MoAs of its own, by `own`, or through a MoPre.
    private struct Entrance {
        var home: HomeAddress
        var network: (moPre: IPPrefix, home: IPPrefix)?
    }

    private var entrances: [Entrance] {
        homeAddresses.flatMap { home -> [Entrance] in
            guard let prefix = configuration.network(of: home) else { return [Entrance(home: home)] }
            return moPres(of: home).map { Entrance(home: home, network: ($0, prefix)) }
        }
    }

    /// The MoPres in use, each with the base address of its home prefix.
    var networks: [MobileAddress: HomeAddress] {
        homeNetworks.isEmpty ? [:] : own.filter { $0.key.isIPv4 == isIPv4 && configuration.network(of: $0.value) != nil }
    }

    /// MoPres that went away. They are this router's for good, whoever has an address on their link, so nothing more is asked.
    var retiredNetworks: [MobileAddress: HomeAddress] {
        homeNetworks.isEmpty ? [:] : retired.filter { $0.key.isIPv4 == isIPv4 && own[$0.key] == nil && configuration.network(of: $0.value) != nil }
    }

    private func moPres(of home: HomeAddress) -> [IPPrefix] { moPres(of: home, among: networks) }

    private func moPres(of home: HomeAddress, among networks: [MobileAddress: HomeAddress]) -> [IPPrefix] {
        guard let prefix = configuration.network(of: home) else { return [] }
        return networks.filter { $0.value == home }.keys.sorted().map { IPPrefix(covering: $0.address, length: prefix.length) }
    }

    private var retiredMoPres: [Entrance] {
        homeAddresses.flatMap { home -> [Entrance] in
            guard let prefix = configuration.network(of: home) else { return [] }
            return moPres(of: home, among: retiredNetworks).map { Entrance(home: home, network: ($0, prefix)) }
        }
    }

    /// The same by own MoAs that went away.
    private var returning: [Entrance] {
        homeAddresses.filter { configuration.network(of: $0) == nil }.map { Entrance(home: $0) } + retiredMoPres
    }
    /// Errors come to both, and are few.
    private var allEntrances: [(entrance: Entrance, set: String)] { entrances.map { ($0, Self.own) } + returning.map { ($0, Self.retired) } }

    private func isAtHome(_ network: IPPrefix) -> Bool { moPres(of: HomeAddress(network.address)).contains(network) }
    private var homeNetworks: [IPPrefix] { homeAddresses.compactMap { configuration.network(of: $0) } }

    /// The peer's HoA, at `theirs`, becomes its MoA in `r1`, and `r0` the own MoA: adjacent, as in the header. Ends the rule if
    /// the packet is not from the path's HoA (at `ours`), or its peer not on this path.
    private func leave(by number: UInt32, _ path: DeparturePath, ours: HeaderField, theirs: HeaderField) -> [Expression] {
        let peer: [Expression] = [.load(theirs, into: r1), .lookup(set: Self.out(number), key: r1, into: r1)]
        if let network = configuration.network(of: path.own) {
            return isWithin(network, ours, in: r0) + peer + load(ours, as: path.moa.address, network.length, into: r0)
        }
        return [.load(ours, into: r0), .compare(r0, .equal, path.own.address.packetOctets)] + peer
            + [.immediate(path.moa.address.packetOctets, into: r0)]
    }

    /// The peer's MoA, at `theirs`, becomes its HoA in `first`, and the own MoA, at `ours`, the HoA in the registers after it.
    /// - Parameter set: the own MoAs that count.
    private func arrive(
        at entrance: Entrance, ours: HeaderField, theirs: HeaderField, first: Register = Register(0), among set: String = Self.own
    ) -> [Expression] {
        let home = entrance.home
        let next = Register(first.index + words)
        if let network = entrance.network {
            return isWithin(network.moPre, ours, in: next) + [.load(theirs, into: first), .lookup(set: Self.into(home), key: first, into: first)]
                + load(ours, as: network.home.address, network.home.length, into: next)
        }
        let isOurs: [Expression] = homeAddresses.count > 1 ? [.compare(next, .equal, home.address.packetOctets)] : []
        return [.load(ours, into: next), .lookup(set: set, key: next, into: next)] + isOurs
            + [.load(theirs, into: first), .lookup(set: Self.into(home), key: first, into: first)]
    }

    // MARK: Chains

    private var chains: [ChainDefinition] {
        guard !homeAddresses.isEmpty else { return [alwaysPlain] }
        var all = [hold, heldHere, translate, unhomed, astray, quotedOut, started, deliver, returned, unseen, errors, quotedIn, answers] + strangerChains + [alwaysPlain] + begunChains
        if needs.translatesSources { all.append(snat) }
        if !homeNetworks.isEmpty { all += [holdForwarded, unhomedNetwork] }
        // Chains are created before the rules that jump to them, so their order here is only for readers of `nft list`.
        return all
    }

    /// A held packet must not enter connection tracking: its entry would have no NAT, and the released packet would belong to it.
    private var hold: ChainDefinition {
        ChainDefinition(
            name: "hold", hook: .init(type: "filter", number: 3, priority: -310),
            rules: [isInterface(.outputName, configuration.deviceName) + [.verdict(.goTo("held"))]]
                + (needs.sparesTracking ? isMapped.map { $0 + [.noTracking, .verdict(.accept)] } : []))
    }

    /// One rule, but for mobile networks, whose hosts are no HoAs with entries of their own.
    private var isMapped: [[Expression]] {
        [loadPair + [.lookup(set: Self.mapped, key: r0, into: nil)]]
            + familyPaths.filter { configuration.network(of: $0.path.own) != nil }
            .map { number, path in leave(by: number, path, ours: source, theirs: destination) }
    }

    /// A packet that the agent has released and that comes back would be released again, and again: the kernel's route leads to our device
    /// though the agent saw another (of two IPv6 routes the kernel leaves the one whose gateway does not answer). Here the agent
    /// is refused (EPERM), which tells it so.
    private var heldHere: ChainDefinition {
        ChainDefinition(name: "held", hook: nil, rules: [isReleased + [.verdict(.drop)], [.noTracking, .verdict(.accept)]])
    }

    /// Sent by `RawInjector`.
    private var isReleased: [Expression] { [.meta(.mark, into: r0), .compare(r0, .equal, nativeOctets(configuration.releaseMark))] }

    /// The chains whose rules name paths: made anew when a path comes, goes or moves. The last two do so only for mobile networks.
    var pathChains: [ChainDefinition] {
        guard !homeAddresses.isEmpty else { return [] }
        guard !homeNetworks.isEmpty else { return [translate, quotedOut] }
        return [translate, quotedOut] + (needs.sparesTracking ? [hold] : []) + (needs.translatesSources ? [snat] : [])
    }

    /// The chains whose rules name MoPres, besides those.
    var networkChains: [ChainDefinition] { homeNetworks.isEmpty ? [] : [deliver, returned, errors, quotedIn, holdForwarded] }

    /// After any firewall's own rules: what they refuse is not held. A copy is held rather than the packet, so that connection tracking never
    /// confirms it; it would be known there without the NAT that the released packet may get.
    private var holdForwarded: ChainDefinition {
        let toDevice = isInterface(.outputName, configuration.deviceName)
        return ChainDefinition(
            name: "hold_forwarded", hook: .init(type: "filter", number: KernelValues.hookForward, priority: 300),
            rules: [
                toDevice + copied(as: .forwarded),
                toDevice + [.verdict(.drop)],
            ]
                // Addresses of a MoPre exist on the wire only. Without this, what nobody takes would go round between the routers.
                + homeAddresses.flatMap { moPres(of: $0) + moPres(of: $0, among: retiredNetworks) }.filter { !homeNetworks.contains($0) }
                .map { isWithin($0, destination, in: r0) + [.verdict(.drop)] })
    }

    private var translate: ChainDefinition {
        // A packet without a route falls into our device although it has an entry: a link went down, or the entry is newer
        // than the route. It is held as it is, and translated when it goes; held translated, it would go out as traffic
        // between MoAs, and its answers with it.
        let leaves = isInterface(.outputName, configuration.deviceName, .notEqual, in: second)
        return ChainDefinition(
            name: "translate", hook: .init(type: "filter", number: 4, priority: 310),
            rules: (needs.exemptsIPsec ? [willBeEncrypted] : []) + [isSignalling + [.verdict(.accept)], isError + [.verdict(.jump("quoted_out"))]]
                + familyPaths.map { number, path in
                    leave(by: number, path, ours: source, theirs: destination) + leaves
                        + [.write(pair, from: r0, checksum: outerChecksum), .verdict(.accept)]
                } + strays
                + [[.load(source, into: r0), .lookup(set: Self.own, key: r0, into: r1), .verdict(.jump("started"))]]
                + doubtfulResets
                + [[.load(source, into: r0), .lookup(set: Self.homes, key: r0, into: nil)] + isLeaving + [.verdict(.goTo("unhomed"))]]
                + homeNetworks.filter { !isAtHome($0) }.map { isWithin($0, source, in: r0) + isLeaving + [.verdict(.goTo("unhomed_network"))] })
    }

    /// A packet from a mobile network that is not at home, which neither translation nor source NAT has taken: there is none (`traffic:
    /// nothing`), or connection tracking can make nothing of the packet, or has noted its flow before. Between the router's own links, whose
    /// addresses may be of the home prefix, it is on its way.
    private var unhomedNetwork: ChainDefinition {
        let multicast: [UInt8] = isIPv4 ? [0xE0] : [0xFF]
        let isMulticast: [Expression] = [
            .load(HeaderField(base: .network, offset: destination.offset, length: 1), into: r0), .mask(r0, multicast), .compare(r0, .equal, multicast),
        ]
        return ChainDefinition(
            name: "unhomed_network", hook: nil,
            rules: homeNetworks.map { isWithin($0, destination, in: r0) + [.verdict(.accept)] } + [
                // IPv4's broadcast to 255.255.255.255 as well.
                isMulticast + [.verdict(.accept)], isLinkLocal(destination) + [.verdict(.accept)],
                isReleased + [.verdict(.drop)], copied(as: .leaving), [.verdict(.drop)],
            ])
    }

    private var isLeaving: [Expression] { isInterface(.outputName, configuration.deviceName, .notEqual) + isInterface(.outputName, "lo", .notEqual) }
    private func isFrom(_ home: HomeAddress) -> [Expression] {
        if let network = configuration.network(of: home) { return isWithin(network, source, in: r0) }
        return [.load(source, into: r0), .compare(r0, .equal, home.address.packetOctets)]
    }

    private var strays: [[Expression]] {
        homeAddresses.map { home in
            isFrom(home) + [.load(destination, into: r0), .lookup(set: Self.forgotten, key: r0, into: nil)] + isLeaving + [.verdict(.goTo("astray"))]
        }
    }

    /// For a HoA whose entry was given up, by a route that a socket has kept from before (IPv6 sockets ask again only when that very
    /// route changes): the agent finds the peer again and sends its copy. Dropped, which is an error to the sender (EPERM), since
    /// connection tracking must not confirm a flow that is to be translated. `IMTKernel.writePeers` sees to it that such
    /// sockets ask again; this is for what nobody thought of.
    private var astray: ChainDefinition {
        ChainDefinition(name: "astray", hook: nil, rules: [isReleased + [.verdict(.drop)], copied(as: .leaving), [.verdict(.drop)]])
    }

    /// A copy to the agent; over the limit the rule ends.
    func copied(as kind: HoldListener.Kind) -> [Expression] {
        [.limit(packetsPerSecond: Self.heldPerSecondMax, burst: Self.heldBurstMax), .log(group: configuration.nflogGroup, prefix: kind.rawValue)]
    }

    /// A packet for IPsec comes here twice: before, and again as ESP or AH. What is inside keeps its HoAs, which the other end's
    /// policies and the encrypted checksum speak of; the outer header alone becomes MoAs.
    private var willBeEncrypted: [Expression] { [.willBeEncrypted(into: r0), .compare(r0, .equal, [1]), .verdict(.accept)] }

    /// A packet of a HoA that no network routes, which neither translation nor source NAT has taken. Mostly a socket that is bound to a HoA
    /// talks to somebody plain, and there is no source NAT yet: the agent gets a copy of the packet, installs it, and sends the copy.
    /// With `traffic: nothing` there never is: only a peer gets the copy.
    /// Dropped here, the packet would be an error (EPERM) to its sender; so it goes, between addresses that no host
    /// accepts from a network (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3). What the agent itself sends is not copied again.
    private var unhomed: ChainDefinition {
        let loopback: [UInt8] = isIPv4 ? [127, 0, 0, 1] : [UInt8](repeating: 0, count: 15) + [1]
        return ChainDefinition(
            name: "unhomed", hook: nil,
            rules: [
                isReleased + [.verdict(.drop)], copied(as: .leaving),
                [.immediate(loopback, into: r0), .immediate(loopback, into: r1), .write(pair, from: r0, checksum: outerChecksum)],
            ])
    }

    /// An error that this host makes quotes the packet as it was delivered, between HoAs; the peer's network must see MoAs.
    private var quotedOut: ChainDefinition {
        ChainDefinition(
            name: "quoted_out", hook: nil,
            rules: familyPaths.map { number, path in
                leave(by: number, path, ours: quotedDestination, theirs: quotedSource) + [
                    .write(quotedDestination, from: r0, checksum: quotedChecksum),
                    .write(quotedSource, from: r1, checksum: quotedChecksum),
                ]
            })
    }

    /// A flow's key from `r0` on, whose address, an HoA or a pair, takes so many registers and is loaded already.
    func flowKey(_ registers: UInt32, _ ports: (HeaderField, HeaderField), protocolNumber: HeaderField? = nil) -> [Expression] {
        let number: Expression = protocolNumber.map { .load($0, into: Register(registers)) } ?? .meta(.protocolNumber, into: Register(registers))
        return [number, .load(ports.0, into: Register(registers + 1)), .load(ports.1, into: Register(registers + 2))]
    }
    var portsSent: (HeaderField, HeaderField) { (transport(0, 2), transport(2, 2)) }
    var portsAnswered: (HeaderField, HeaderField) { (transport(2, 2), transport(0, 2)) }
    /// Echo has an identifier in place of ports.
    var identifier: (HeaderField, HeaderField) { (transport(4, 2), transport(4, 2)) }

    /// Notes untranslated flows that begin here, so that their answers are neither translated nor held. TCP needs that only
    /// towards a peer's MoA; otherwise its connected socket claims the answers. UDP and echo have no such socket.
    private var started: ChainDefinition {
        let key: [Expression] = [.load(destination, into: r0), .load(source, into: r1)]
        let note: [Expression] = [
            .update(.renew, set: Self.plainFlows, setID: 7, key: r0, data: nil, timeoutMilliseconds: Self.plainFlowMilliseconds)
        ]
        return ChainDefinition(
            name: "started", hook: nil,
            rules: [isEdge] + familyOwn.map { moa, _ in
                [.load(source, into: r0), .compare(r0, .equal, moa.address.packetOctets), .verdict(.jump(Self.begun(moa)))]
            } + [
                isProtocol(Self.udp) + key + flowKey(2 * words, portsAnswered) + note,
                isProtocol(icmp) + isType(echoRequest) + key + flowKey(2 * words, identifier) + note,
            ])
    }

    private var familyOwn: [(MobileAddress, HomeAddress)] {
        own.filter { $0.key.isIPv4 == isIPv4 && homeAddresses.contains($0.value) }.sorted { $0.key.address < $1.key.address }
            .map { ($0.key, $0.value) }
    }
    /// One for each own MoA: made anew when one comes or goes.
    var begunChains: [ChainDefinition] { familyOwn.map(begun) }
    var startedChain: ChainDefinition? { homeAddresses.isEmpty ? nil : started }

    /// Flows to peers' MoAs. The key wants the peer's HoA, and a look-up's result can't be a key for `nft list`: so the HoA is
    /// written over the own MoA for a moment, which is known here without the header. Checksums need no mending meanwhile.
    private func begun(_ moa: MobileAddress, _ home: HomeAddress) -> ChainDefinition {
        let octets = moa.address.packetOctets
        let data = Register(words + 3)
        let isPeer: [Expression] = [
            .load(destination, into: r0), .lookup(set: Self.into(home), key: r0, into: r0), .write(source, from: r0, checksum: .none),
            .load(source, into: r0),
        ]
        let mobile: [Expression] = [.load(destination, into: data), .immediate(octets, into: Register(data.index + words))]
        func note(_ change: ElementChange, _ milliseconds: UInt64) -> [Expression] {
            mobile + [
                .update(change, set: Self.peerFlows, setID: 9, key: r0, data: data, timeoutMilliseconds: milliseconds),
                .update(
                    .renew, set: Self.plainPeers, setID: 6, key: r0, data: nil, timeoutMilliseconds: Self.plainPeerMilliseconds),
            ]
        }
        let ports = flowKey(words, portsAnswered)
        return ChainDefinition(
            name: Self.begun(moa), hook: nil,
            rules: [
                isProtocol(Self.udp) + isPeer + ports + note(.renew, Self.plainFlowMilliseconds),
                isProtocol(icmp) + isType(echoRequest) + isPeer + flowKey(words, identifier)
                    + note(.renew, Self.plainFlowMilliseconds),
                // A new connection may have an old one's ports, and begin elsewhere.
                isTCP(withAny: 2) + isPeer + ports + mobile
                    + [
                        .update(.remove, set: Self.peerFlows, setID: 9, key: r0, data: data, timeoutMilliseconds: 0),
                        .update(.remove, set: Self.plainEnds, setID: Self.plainEndsID, key: r0, data: nil, timeoutMilliseconds: 0),
                    ],
                isTCP(withAny: 2) + isPeer + ports + note(.renew, Self.plainConnectionMilliseconds),
                isTCP(withAny: 5) + isPeer + ports + note(.renew, Self.plainEndMilliseconds) + [noteEnd(Self.plainEndMilliseconds)],
                isProtocol(Self.tcp) + isPeer + ports + note(.add, Self.plainConnectionMilliseconds),
                [
                    .load(source, into: r0), .compare(r0, .notEqual, octets), .immediate(octets, into: r0),
                    .write(source, from: r0, checksum: .none),
                ],
            ])
    }

    /// - Parameter milliseconds: as long as the flow is noted, at least.
    private func noteEnd(_ milliseconds: UInt64) -> Expression {
        .update(.renew, set: Self.plainEnds, setID: Self.plainEndsID, key: r0, data: nil, timeoutMilliseconds: milliseconds)
    }

    private var untracked: [Expression] { needs.sparesTracking ? [.noTracking] : [] }

    private var deliver: ChainDefinition {
        ChainDefinition(
            name: "deliver", hook: .init(type: "filter", number: 0, priority: -310),
            rules: [isSignalling + [.verdict(.accept)], isError + [.verdict(.jump("errors"))]]
                + entrances.map { delivered(at: $0) } + flowsToAnswer + [[.load(destination, into: r0), .lookup(set: Self.own, key: r0, into: r1), .verdict(.goTo("stranger"))]]
                // At home the prefix's packets need no translation, and plain ones no question.
                + homeAddresses.flatMap { moPres(of: $0) }.filter { !homeNetworks.contains($0) }.map { isWithin($0, destination, in: r0) + [.verdict(.goTo("stranger"))] }
                + retiredMoPres.compactMap { $0.network?.moPre }.map { isWithin($0, destination, in: r0) + [.verdict(.goTo("returned"))] }
                + [[.load(destination, into: r0), .lookup(set: Self.retired, key: r0, into: r1)] + (needs.asksRouting ? isLocal : []) + [.verdict(.goTo("returned"))]]
                // The rest is no peer's, or is meant as it is: for this host's other addresses, or to be forwarded.
                + (needs.asksRouting ? [[.load(destination, into: r0), .lookup(set: Self.known, key: r0, into: nil), .verdict(.accept)], isLocal + [.verdict(.goTo("unseen"))]] : []))
    }

    /// A peer's packet, translated. That is all, but for the few peers to whose MoA a plain flow began: for these the rule ends there.
    private func delivered(at entrance: Entrance, among set: String = Self.own) -> [Expression] {
        arrive(at: entrance, ours: destination, theirs: source, among: set) + [
            .write(pair, from: r0, checksum: arrivingChecksum), .load(source, into: r0), .absent(set: Self.plainPeers, key: r0),
        ] + untracked + [.verdict(.accept)]
    }

    /// For an address that the agent has not seen yet, or not decided about. What comes from a peer's MoA was meant for another one: a
    /// conversation that this is part of is not found here, whatever the stack would find. But for neighbour discovery, which
    /// says nothing to any conversation.
    private var unseen: ChainDefinition {
        ChainDefinition(
            name: "unseen", hook: nil,
            rules: [isProtocol(icmp) + isType(echoRequest, .notEqual) + isType(echoReply, .notEqual) + [.verdict(.accept)]]
                + homeAddresses.flatMap { home -> [[Expression]] in
                    let isPeer: [Expression] = [.load(source, into: r0), .lookup(set: Self.into(home), key: r0, into: r1)]
                    return [isPeer + copied(as: .held), isPeer + [.verdict(.drop)]]
                } + [[.verdict(.goTo("stranger"))]])
    }

    /// Whether the packet is for an address that this host has now (RTN_LOCAL 2), whatever the agent knows.
    private var isLocal: [Expression] { [.addressType(of: .destination, into: r0), .compare(r0, .equal, nativeOctets(UInt32(2)))] }
    var isFromLocal: [Expression] { [.addressType(of: .source, into: r0), .compare(r0, .equal, nativeOctets(UInt32(2)))] }

    /// For an own MoA that went away and is back, or whose HoA stayed on our device (a stationary server's): the agent will hear of
    /// it in a moment, and peers' packets are here now.
    private var returned: ChainDefinition {
        ChainDefinition(
            name: "returned", hook: nil,
            rules: returning.map { delivered(at: $0, among: Self.retired) } + flowsToAnswer + homeNetworks.map { isWithin($0, destination, in: r0) + [.verdict(.accept)] } + [[.verdict(.goTo("stranger"))]])
    }

    /// Translated already, and from a peer to whose MoA a plain flow began.
    private var flowsToAnswer: [[Expression]] {
        homeAddresses.map { home in
            [
                .load(destination, into: r0), .compare(r0, .equal, home.address.packetOctets), .load(source, into: r0),
                .lookup(set: Self.plainPeers, key: r0, into: nil), .verdict(.goTo("answers")),
            ]
        }
    }

    /// From a peer that has a plain flow too, and translated already: if it belongs to that flow, back to the MoAs it began
    /// between.
    private var answers: ChainDefinition {
        let restore: [Expression] = [
            .lookup(set: Self.peerFlows, key: r0, into: r0), .write(pair, from: r0, checksum: arrivingChecksum), .verdict(.accept),
        ]
        let key = [.load(source, into: r0)] + flowKey(words, portsSent)
        let data = Register(words + 3)
        return ChainDefinition(
            name: "answers", hook: nil,
            rules: [
                // A connection that begins, begun by either end, is another than the one that had these
                // ports and ended: between HoAs, since a new one between MoAs would have said so (`begun`). Only of an ended one: a SYN is
                // no proof of anything, and must end nothing that lives.
                isTCP(withAny: 2) + key + [
                    .lookup(set: Self.plainEnds, key: r0, into: nil), .load(pair, into: data),
                    .update(.remove, set: Self.plainEnds, setID: Self.plainEndsID, key: r0, data: nil, timeoutMilliseconds: 0),
                    .update(.remove, set: Self.peerFlows, setID: 9, key: r0, data: data, timeoutMilliseconds: 0),
                ],
                isTCP(withAny: 4) + key + [
                    .lookup(set: Self.peerFlows, key: r0, into: data), noteEnd(Self.plainConnectionMilliseconds),
                ],
                isProtocol(icmp) + isType(echoReply) + [.load(source, into: r0)] + flowKey(words, identifier) + restore,
                key + restore,
                untracked + [.verdict(.accept)],
            ])
    }

    /// Errors about packets of ours, which quote them as they were on the wire.
    private var errors: ChainDefinition {
        // The quoted source and destination are ours and the peer's; the keys are those of answers.
        let quote: [Expression] = [.load(quotedDestination, into: r0), .load(quotedSource, into: r1)]
        let isPlain: [Expression] = [.lookup(set: Self.plainFlows, key: r0, into: nil), .verdict(.accept)]
        return ChainDefinition(
            name: "errors", hook: nil,
            rules: [
                // About an untranslated flow of ours.
                quote + flowKey(2 * words, quotedPortsAnswered, protocolNumber: quotedProtocol) + isPlain,
                isQuotedEcho + quote + flowKey(2 * words, quotedIdentifier, protocolNumber: quotedProtocol) + isPlain,
            ]
                + allEntrances.map { entrance, set in
                    arrive(at: entrance, ours: quotedSource, theirs: quotedDestination, among: set) + rewriteQuote + [.verdict(.goTo("quoted_in"))]
                })
    }

    private var rewriteQuote: [Expression] {
        [
            .write(quotedDestination, from: r0, checksum: quotedChecksum), .write(quotedSource, from: r1, checksum: quotedChecksum),
        ]
    }
    private var quotedPortsAnswered: (HeaderField, HeaderField) { (transport(quotedPorts + 2, 2), transport(quotedPorts, 2)) }
    private var quotedIdentifier: (HeaderField, HeaderField) { (transport(quotedPorts + 4, 2), transport(quotedPorts + 4, 2)) }
    private var isQuotedEcho: [Expression] { [.load(quotedProtocol, into: r0), .compare(r0, .equal, icmp)] }

    /// The quote is between HoAs now.
    private var quotedIn: ChainDefinition {
        let key: [Expression] = [.load(quotedDestination, into: r0)]
        // About a plain flow to a peer: back to the MoAs it began between.
        let restore =
            [.lookup(set: Self.peerFlows, key: r0, into: r0)] + rewriteQuote
            + [.write(destination, from: r1, checksum: arrivingChecksum), .verdict(.accept)]
        return ChainDefinition(
            name: "quoted_in", hook: nil,
            rules: [
                isQuotedEcho + key + flowKey(words, quotedIdentifier, protocolNumber: quotedProtocol) + restore,
                key + flowKey(words, quotedPortsAnswered, protocolNumber: quotedProtocol) + restore,
            ]
                // From the peer itself: both headers.
                + allEntrances.map { entrance, set in
                    arrive(at: entrance, ours: destination, theirs: source, among: set)
                        + [.write(pair, from: r0, checksum: arrivingChecksum), .verdict(.accept)]
                }
                // From a router on the way: only the HoA it concerns.
                + [[.load(quotedSource, into: r0), .write(destination, from: r0, checksum: arrivingChecksum), .verdict(.accept)]])
    }

    private var alwaysPlain: ChainDefinition {
        ChainDefinition(name: Self.alwaysPlainChain, hook: nil, rules: alwaysPlainRules(configuration.alwaysPlain))
    }

    /// Rules, not set elements: prefixes overlap and are few.
    func alwaysPlainRules(_ prefixes: [IPPrefix]) -> [[Expression]] {
        prefixes.filter { $0.isIPv4 == isIPv4 }.map { prefix in
            let mask = IPAddress(high: .max, low: .max).masked(to: prefix.length).octets.suffix(Int(width))
            let partial: [Expression] = prefix.length == 128 ? [] : [.mask(r0, Array(mask))]
            return [.load(source, into: r0)] + partial + [.compare(r0, .equal, prefix.address.packetOctets), .verdict(.accept)]
        }
    }

    private var snat: ChainDefinition {
        ChainDefinition(
            name: Self.sourceNAT, hook: .init(type: "nat", number: 4, priority: 100),
            // Only a connection's first packet comes here, so the look-up hardly counts.
            rules: (needs.exemptsIPsec ? [willBeEncrypted] : [])
                + isMapped.map { $0 + [.verdict(.accept)] }
                // Not by its way, and not with another's name: see `astray`, which a packet must reach as it is.
                + strays
                // Between a mobile network's own links nothing changes, nor at home.
                + homeNetworks.map { isWithin($0, destination, in: r0) + [.verdict(.accept)] }
                + homeNetworks.filter(isAtHome).map { isWithin($0, source, in: r0) + [.verdict(.accept)] }
                + [
                isInterface(.outputName, configuration.deviceName, .notEqual) + [
                    .load(source, into: r0), .lookup(set: Self.homes, key: r0, into: nil), .masquerade,
                ],
            ]
                + homeNetworks.map { prefix in
                    isInterface(.outputName, configuration.deviceName, .notEqual) + isWithin(prefix, source, in: r0) + [.masquerade]
                })
    }
}
