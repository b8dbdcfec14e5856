import IMTPlan
import MATCore
import MATSignal
import MATTesting
import NodeCore
import Testing

/// A point in virtual time.
func time(_ milliseconds: Int64) -> MonotonicTime { .zero + .milliseconds(milliseconds) }

/// A node's core alone, in virtual time, with a test that plays everyone else: DNS, servers, peers and kernel.
///
/// ```
///   own HoA 198.51.100.1, at 192.0.2.10 and .11; own IMSs 192.88.1.1 and .2
///   peer HoA 203.0.113.1, at 198.18.0.10 and .11; its IMS 192.88.2.1
/// ```
final class NodeHarness {
    static let ownServers = [ip("192.88.1.1"), ip("192.88.1.2")]
    static let peerServer = ip("192.88.2.1")
    static let first = ip("192.0.2.10")
    static let second = ip("192.0.2.11")
    static let peerFirst = ip("198.18.0.10")
    static let peerSecond = ip("198.18.0.11")

    struct Sent {
        let message: SignalMessage
        let octetsCount: Int
        let from: IPAddress
        let to: Endpoint
        /// Milliseconds since the start.
        let at: Int64
    }

    let ownAuthority = TestAuthority(seed: 201)
    let peerAuthority = TestAuthority(seed: 202)
    let own: TestIdentity
    let peer: TestIdentity
    var core: NodeCore
    private(set) var clock = VirtualClock()
    private(set) var imt = ModelIMT()
    /// Not yet taken by the test.
    var sent: [Sent] = []
    var lookUps: [HomeAddress] = []
    /// Prefixes whose names are asked for, not yet answered.
    var keyLookUps: [IPPrefix] = []
    /// What the DNS gives at any prefix's name, at once; `nil`: nothing yet.
    var keysOfPrefixes: [PublicKey]?
    /// Everything since the start, in order.
    private(set) var actions: [NodeAction] = []
    private(set) var logs: [String] = []
    /// What the kernel was told, a transaction each.
    var imtChanges: [[IMTChange]] { actions.compactMap { if case .changeIMT(let changes) = $0 { changes } else { nil } } }
    /// Whether whoever is asked at a place says that it is the HoA, there. Off for tests of what happens if not.
    var answersChecks: Bool
    /// Whether the own servers don't say where they see the node, as those of an earlier version. Off for tests of what stands between.
    var ignoresAsks = true
    private let start: MonotonicTime
    private var linked: [IPAddress] = []

    init(answersChecks: Bool = true, adjust: (inout NodeCoreConfiguration) -> Void = { _ in }) throws {
        self.answersChecks = answersChecks
        own = ownAuthority.enrol(home("198.51.100.1"), seed: 11)
        peer = peerAuthority.enrol(home("203.0.113.1"), seed: 12)
        var configuration = NodeCoreConfiguration(
            homes: [HomeIdentity(hoa: own.hoa, key: own.key, certificate: own.certificate)], clientSecret: [UInt8](repeating: 1, count: 16),
            cookieSecret: [UInt8](repeating: 2, count: 16))
        adjust(&configuration)
        core = try #require(NodeCore(configuration, random: SeededGenerator(seed: 1)))
        start = clock.time
        keysOfPrefixes = [peerAuthority.key.publicKey]
    }

    /// How far the machine's wall clock is ahead of the right time.
    var clockLead: Duration = .zero
    var now: Now {
        var now = clock.now
        now.wallMilliseconds = UInt64(Int64(now.wallMilliseconds) + clockLead.millisecondsSaturated)
        return now
    }
    var wall: UInt64 { clock.now.wallMilliseconds }
    var pair: HomePair { HomePair(own: own.hoa, peer: peer.hoa) }
    func arrival(_ peer: IPAddress) -> Arrival { Arrival(peer: MobileAddress(peer), own: pair.own) }
    func path(_ own: IPAddress, _ peer: IPAddress) -> MobilePair { MobilePair(own: MobileAddress(own), peer: MobileAddress(peer)) }
    /// How packets to the peer leave: not at all while the own MoA of the entry is on no link.
    var outbound: MobilePair? { imt.outbound[pair].flatMap { linked.contains($0.own.address) ? $0 : nil } }

    // MARK: Driving

    func event(_ event: (inout NodeCore, Now) -> [NodeAction]) {
        let actions = event(&core, now)
        self.actions += actions
        var checks: [Sent] = []
        defer {
            if answersChecks { for check in checks { confirm(check) } }
            if let keys = keysOfPrefixes { for prefix in keyLookUps { foundKeys(prefix, keys) } }
        }
        for action in actions {
            switch action {
            case .send(let octets, let own, let target), .sendIfRoom(let octets, let own, let target):
                for case .message(let message, let count) in SignalDatagram.decode(octets) {
                    let one = Sent(message: message, octetsCount: count, from: own, to: target, at: (clock.time - start).millisecondsSaturated)
                    if ignoresAsks, one.isAsk { continue }
                    sent.append(one)
                    if message.type == .maQuery, target.port == SignalPort.node { checks.append(one) }
                }
            case .lookUp(let hoa): lookUps.append(hoa)
            case .lookUpKeys(let prefix): keyLookUps.append(prefix)
            case .changeIMT(let changes): imt.apply(changes, now: clock.time)
            case .log(let level, let text): logs.append("\(level): \(text)")
            default: break
            }
        }
    }

    /// An event whose messages nobody looks at.
    func quietly(_ event: (inout NodeCore, Now) -> [NodeAction]) {
        for case .changeIMT(let changes) in event(&core, now) { imt.apply(changes, now: clock.time) }
    }

    func advance(_ duration: Duration) {
        let end = clock.time + duration
        while let next = core.nextDeadline, next <= end {
            clock.advance(to: next)
            event { core, now in core.timerFired(now: now) }
        }
        clock.advance(to: end)
    }

    func forgetKernel() { imt = ModelIMT() }

    func clear() { (sent, lookUps, actions, logs) = ([], [], [], []) }

    /// The first message of this type that the test has not taken yet.
    func take(_ type: MessageType, to address: IPAddress? = nil, sourceLocation: SourceLocation = #_sourceLocation) throws -> Sent {
        let index = sent.firstIndex { $0.message.type == type && (address == nil || $0.to.address == address) }
        return sent.remove(at: try #require(index, "no \(type) was sent\(address.map { " to \($0)" } ?? "")", sourceLocation: sourceLocation))
    }

    func count(_ type: MessageType, to address: IPAddress? = nil) -> Int {
        sent.filter { $0.message.type == type && (address == nil || $0.to.address == address) }.count
    }

    /// Delivers a response to a request, from where it went.
    func answer(_ request: Sent, _ body: SignalMessage.Body) {
        deliver(SignalMessage(sequence: request.message.sequence, body), from: request.to, to: request.from)
    }

    func deliver(_ message: SignalMessage, from source: Endpoint, to local: IPAddress) {
        event { core, now in core.received(message.octets, from: source, to: local, now: now) }
    }

    /// A cookie as the server of this request would give.
    func cookie(_ request: Sent, _ number: UInt8 = 1) -> Cookie {
        let authority = CookieAuthority(secret: [UInt8](repeating: number, count: 16))
        let client = request.message.cookie.client
        return Cookie(client: client, server: authority?.make(for: Endpoint(request.from, port: SignalPort.node), clientCookie: client, now: now))
    }

    func links(_ addresses: [IPAddress], infrastructure: Set<IPAddress> = [], areMobilePrefixes: Bool = false) {
        linked = addresses
        let locators = addresses.enumerated().map { OwnLocator(MobileAddress($1), interface: "if\($0)", isMobilePrefix: areMobilePrefixes) }
        event { core, now in core.linksChanged(locators, infrastructure: infrastructure, now: now) }
    }

    // MARK: The others

    func found(
        _ hoa: HomeAddress, _ servers: [IPAddress], _ authority: TestAuthority, relays: [RelayHost] = [], lifetime: Duration = .seconds(36_000)
    ) {
        lookUps.removeAll { $0 == hoa }
        let set = ServerSet(
            endpoints: servers.map { Endpoint($0, port: SignalPort.ims) }, keys: [authority.key.publicKey], relays: relays,
            expires: clock.time + lifetime)
        event { core, now in core.lookedUp(hoa, .found(set), now: now) }
    }

    /// The DNS gives these keys at a prefix's own name.
    func foundKeys(_ prefix: IPPrefix, _ keys: [PublicKey]) {
        keyLookUps.removeAll { $0 == prefix }
        let set = ServerSet(endpoints: [Endpoint(Self.peerServer, port: SignalPort.ims)], keys: keys, expires: clock.time + .seconds(36_000))
        event { core, now in core.keysLookedUp(prefix, keys.isEmpty ? .absent(lifetime: .seconds(5)) : .found(set), now: now) }
    }

    func foundOwn(relays: [RelayHost] = []) { found(own.hoa, Self.ownServers, ownAuthority, relays: relays) }
    func foundPeer() { found(peer.hoa, [Self.peerServer], peerAuthority) }

    func answerUpdate(_ code: ResponseCode = .ok, current: SignedMapping? = nil, lifetime: UInt32? = nil, certificate: Certificate? = nil) throws {
        let update = try take(.imsUpdate)
        let observed = Endpoint(update.from, port: SignalPort.node)
        answer(
            update,
            .imsUpdateReply(
                IMSUpdateReply(
                    code: code, cookie: cookie(update), observed: observed, current: current, certificate: certificate, lifetime: lifetime)))
    }

    /// The own servers answer where they see the node.
    func observe(seen: Endpoint) {
        while let index = sent.firstIndex(where: \.isAsk) {
            let ask = sent.remove(at: index)
            answer(ask, .bindAck(BindAck(code: .ok, cookie: cookie(ask), observed: seen)))
        }
    }

    /// Answers the cookie-fetching queries that are out.
    func answerProofs() {
        while let index = sent.firstIndex(where: { $0.message.type == .maQuery && Self.ownServers.contains($0.to.address) }) {
            let query = sent.remove(at: index)
            answer(query, .maAnswer(MAAnswer(code: .cookieRequired, cookie: cookie(query), hoa: nil)))
        }
    }

    /// Registers the node at these addresses.
    func register(at addresses: [IPAddress] = [first]) throws {
        links(addresses)
        if lookUps.contains(own.hoa) { foundOwn() }
        answerProofs()
        // Servers that don't say where they see a private address are not waited for longer.
        if count(.imsUpdate) == 0 { advance(.milliseconds(400)) }
        try answerUpdate()
        #expect(core.isRegistered)
        clear()
    }

    /// The peer's IMS answers the query that is out.
    func answerQuery(_ mapping: CertifiedMapping, subscribe: UInt32? = 300) throws {
        let query = try take(.maQuery, to: Self.peerServer)
        answer(
            query,
            .maAnswer(
                MAAnswer(
                    code: .ok, cookie: cookie(query), hoa: peer.hoa, mapping: mapping.mapping, certificate: mapping.certificate, subscribe: subscribe)
            ))
    }

    func acknowledgeHANotify(_ code: ResponseCode = .ok) throws {
        let notify = try take(.haNotify)
        answer(notify, .haNotifyAck(HANotifyAck(code: code, cookie: cookie(notify), hoa: own.hoa)))
    }

    private func confirm(_ check: Sent) {
        answer(check, .maAnswer(MAAnswer(code: .ok, cookie: Cookie(client: check.message.cookie.client), hoa: check.query?.hoa)))
    }

    /// The node at this place answers the locator check that is out.
    func answerCheck(at address: IPAddress = peerFirst, _ code: ResponseCode = .ok) throws {
        let query = try take(.maQuery, to: address)
        answer(query, .maAnswer(MAAnswer(code: code, cookie: Cookie(client: query.message.cookie.client), hoa: peer.hoa)))
    }

    func peerRecord(_ addresses: [IPAddress] = [peerFirst], sequence: UInt64? = nil) -> CertifiedMapping {
        peer.record(addresses, sequence: sequence ?? wall)
    }

    /// The peer's record, in which these are its places.
    func peerRecord(at places: [MappingRecord.Place]) -> CertifiedMapping {
        let record = MappingRecord(hoa: peer.hoa, sequence: wall, lifetime: 600, issued: wall, places: places)
        guard let mapping = record.signed(with: peer.key) else { preconditionFailure("the crypto library does not sign") }
        return CertifiedMapping(mapping: mapping, certificate: peer.certificate)
    }

    /// Likewise with places where it takes datagrams alone.
    func peerRecord(at endpoints: [Endpoint]) -> CertifiedMapping {
        peerRecord(at: endpoints.enumerated().map { MappingRecord.Place.endpoint($1, preference: UInt8($0 + 1)) })
    }

    /// Registers, and wants to talk to the peer, whose record lists these endpoints.
    func talk(toPeerAt endpoints: [Endpoint]) throws {
        try register()
        event { core, now in core.heldOutbound(to: peer.hoa.address, now: now) }
        foundPeer()
        try answerQuery(peerRecord(at: endpoints))
        try acknowledgeHANotify()
    }

    /// Registers, and enters the peer at its first place.
    func meet(at addresses: [IPAddress] = [first], peerAt peerAddresses: [IPAddress] = [peerFirst]) throws {
        try register(at: addresses)
        event { core, now in core.heldOutbound(to: peer.hoa.address, now: now) }
        foundPeer()
        try answerQuery(peerRecord(peerAddresses))
        try acknowledgeHANotify()
        if !answersChecks { for place in peerAddresses { try answerCheck(at: place) } }
        #expect(imt.outbound[pair] != nil || peerAddresses.isEmpty)
        advance(.milliseconds(10))
        clear()
    }

    /// A MA Notify arrives.
    ///
    /// - Parameter cookie: a server cookie of this node, as an earlier ack gave.
    func notify(_ mapping: CertifiedMapping, from source: Endpoint, to local: IPAddress = first, cookie: ServerCookie? = nil, sequence: UInt32 = 77) {
        let record = EnclosedRecord(mapping: mapping.mapping, certificate: .whole(mapping.certificate))
        deliver(
            SignalMessage(sequence: sequence, .maNotify(MANotify(cookie: Cookie(client: 5, server: cookie), record: record))), from: source, to: local
        )
    }

    func takeAck() throws -> MANotifyAck {
        guard case .maNotifyAck(let ack) = try take(.maNotifyAck).message.body else { throw Missing() }
        return ack
    }

    struct Missing: Error {}

    var peerNode: Endpoint { Endpoint(Self.peerFirst, port: SignalPort.node) }
    var peerIMS: Endpoint { Endpoint(Self.peerServer, port: SignalPort.ims) }
    var ownIMS: Endpoint { Endpoint(Self.ownServers[0], port: SignalPort.ims) }

    func hasReleased(_ action: NodeAction) -> Bool {
        if case .releaseOutbound(let hoa) = action, hoa == peer.hoa.address, actions.contains(.releaseRouted) { return outbound != nil }
        return actions.contains(action)
    }
    func hasLogged(_ text: String) -> Bool { logs.contains { $0.contains(text) } }
}

extension NodeHarness.Sent {
    /// It asks a server where that sees us.
    var isAsk: Bool { if case .bind(let bind) = message.body { bind.wish == .ask } else { false } }
    var update: IMSUpdate? { if case .imsUpdate(let update) = message.body { update } else { nil } }
    var query: MAQuery? { if case .maQuery(let query) = message.body { query } else { nil } }
    var notify: MANotify? { if case .maNotify(let notify) = message.body { notify } else { nil } }
    var haNotify: HANotify? { if case .haNotify(let notify) = message.body { notify } else { nil } }
}

extension NodeCore {
    /// Packets that went out, and none that came.
    mutating func traffic(_ sent: some Sequence<(key: HomeAddress, value: UInt64)>, now: Now) -> [NodeAction] {
        traffic(sent.map { (key: $0.key, value: PeerPackets(sent: $0.value)) }, now: now)
    }
}
