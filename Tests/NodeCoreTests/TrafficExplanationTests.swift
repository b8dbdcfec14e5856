import IMTPlan
import MATCore
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// What `mat explain` says of a destination, and of a socket: each cause by its name, with what to do.
@Suite("Why traffic is mapped or plain") struct TrafficExplanationTests {
    private func explain(
        _ node: NodeHarness, from own: IPAddress? = nil, to remote: IPAddress, _ adjust: (inout IMTConfiguration) -> Void = { _ in }
    ) -> TrafficExplanation {
        var kernel = IMTConfiguration(homeAddresses: [node.own.hoa])
        adjust(&kernel)
        return node.core.explainTraffic(from: own, to: remote, kernel, node.now)
    }

    private let plain = ip("198.51.100.200")

    @Test("A peer's conversation survives; one with its mobile address, or from an own one, does not, and says so")
    func peer() throws {
        let node = try NodeHarness()
        try node.meet()
        let mapped = explain(node, from: node.own.hoa.address, to: node.peer.hoa.address)
        #expect(mapped.way == .mapped && mapped.cause == .peer && mapped.survival == .yes && mapped.remedy == nil)
        #expect(mapped.peer?.moa?.address == NodeHarness.peerFirst)
        #expect(explain(node, to: node.peer.hoa.address).way == .mapped)
        let beside = explain(node, from: NodeHarness.first, to: node.peer.hoa.address)
        #expect(beside.way == .plain && beside.cause == .ownAddress && beside.survival == .no)
        #expect(beside.text.contains("\(NodeHarness.first) of if0") && beside.text.contains("is a peer") && beside.remedy != nil)
        let place = explain(node, to: NodeHarness.peerFirst)
        #expect(place.cause == .peersAddress(node.peer.hoa) && place.survival == .no && place.remedy?.contains("\(node.peer.hoa)") == true)
        // Without any address its packets wait, and nobody would promise more.
        node.links([])
        let waiting = explain(node, to: node.peer.hoa.address)
        #expect(waiting.way == .waits && waiting.survival != .yes)
    }

    @Test("What never leaves this host or its link, and what the configuration leaves out, is named as such, but a peer is mapped all the same")
    func configured() throws {
        let node = try NodeHarness()
        try node.meet()
        #expect(explain(node, to: ip("127.0.0.1")).cause == .thisHost && explain(node, to: NodeHarness.first).cause == .thisHost)
        #expect(explain(node, to: ip("224.0.0.251")).cause == .link)
        #expect(explain(node, to: ip("2001:db8::1")).cause == .noHome)
        let listed = try #require(IPPrefix("203.0.113.0/24"))
        #expect(explain(node, to: plain) { $0.traffic = .prefixes([listed]) }.cause == .notSelected)
        #expect(explain(node, to: node.peer.hoa.address) { $0.traffic = .nothing }.way == .mapped)
        let exception = explain(node, to: plain) { $0.exceptions = [IPPrefix(plain)] }
        #expect(exception.way == .plain && exception.cause == .exception(IPPrefix(plain)) && exception.text.contains("`except`"))
        #expect(explain(node, to: plain) { $0.alwaysPlain = [IPPrefix(plain)] }.cause == .nameServer)
    }

    @Test("A destination is unseen, then asked for, then plain for as long as the DNS says so; a silent DNS and a missing record are told apart")
    func unknown() throws {
        let node = try NodeHarness()
        try node.register()
        let hoa = HomeAddress(plain)
        #expect(explain(node, to: plain).cause == .unseen && explain(node, to: plain).survival == .unknown)
        node.event { $0.heldOutbound(to: plain, now: $1) }
        #expect(explain(node, to: plain).way == .waits && explain(node, to: plain).cause == .lookedUp)
        node.event { $0.lookedUp(hoa, .failed("a time-out"), now: $1) }
        #expect(explain(node, to: plain).text.contains("so far: a time-out"))
        node.advance(.seconds(3))
        let silent = explain(node, to: plain)
        #expect(silent.way == .plain && silent.cause == .silentNames("a time-out") && silent.remedy?.contains("mat lookup \(plain)") == true)
        node.event { $0.lookedUp(hoa, .absent(lifetime: .seconds(60)), now: $1) }
        let absent = explain(node, to: plain)
        #expect(absent.way == .plain && absent.cause == .noServers && absent.survival == .no && absent.remedy?.contains("gateway") == true)
        node.advance(.seconds(61))
        #expect(explain(node, to: plain).cause == .unseen)
    }

    @Test("A home address that is not registered is told from a plain host")
    func noMapping() throws {
        let node = try NodeHarness()
        try node.register()
        node.event { $0.heldOutbound(to: node.peer.hoa.address, now: $1) }
        node.foundPeer()
        #expect(explain(node, to: node.peer.hoa.address).cause == .asked)
        let query = try node.take(.maQuery, to: NodeHarness.peerServer)
        node.answer(query, .maAnswer(MAAnswer(code: .notFound, cookie: node.cookie(query, 2), hoa: node.peer.hoa, lifetime: 30)))
        let explanation = explain(node, to: node.peer.hoa.address)
        #expect(explanation.way == .plain && explanation.cause == .noMapping && explanation.remedy?.contains("start matd there") == true)
    }

    @Test("While this node is not registered a peer's conversation may not survive, and the reason is the registration's")
    func oneSided() throws {
        let node = try NodeHarness()
        try node.meet()
        node.links([NodeHarness.second])
        node.advance(.seconds(30))
        let explanation = explain(node, to: node.peer.hoa.address)
        guard case .perhaps(let reason) = explanation.survival else {
            Issue.record("\(explanation)")
            return
        }
        #expect(!reason.isEmpty)
    }
}
