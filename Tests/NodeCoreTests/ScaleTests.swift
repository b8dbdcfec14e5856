import CLinux
import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// What many peers cost, in memory, in changes of the kernel and in messages.
@Suite("Many peers", .serialized) struct ScaleTests {
    typealias H = NodeHarness

    /// A registered node with this many peers, each at a place of its own and proven there; `perServer` of them share an IMS.
    private func crowd(_ count: Int, perServer: Int = 100, adjust: (inout NodeCoreConfiguration) -> Void = { _ in }) throws -> NodeHarness {
        let node = try NodeHarness(adjust: adjust)
        try node.register()
        // Nobody checks it here.
        let signature = try #require(Signature([UInt8](repeating: 7, count: 64)))
        for index in 0..<count {
            let (hoa, place) = Self.peer(index)
            let record = MappingRecord(hoa: hoa, sequence: node.wall, lifetime: 600, issued: node.wall, locators: [Locator(place)])
            let mapping = SignedMapping(record: record, signature: signature)
            let offered = OfferedRecord(mapping, under: node.peer.certificate)
            let server = IPAddress(ipv4: 0xC058_0000 + UInt32(index / perServer))
            let servers = ServerSet(
                endpoints: [Endpoint(server, port: SignalPort.ims)], keys: [node.peerAuthority.key.publicKey],
                expires: node.now.monotonic + .seconds(36_000))
            node.quietly { core, now in
                core.adopt(offered, for: hoa, isConfirmed: true, now)
                core.keepServers(servers, of: hoa)
                core.prove(place, of: hoa, now)
                core.cancel(.checkLocator(hoa, place))
                core.peerKnowsUs(hoa, of: core.announcing(for: hoa)?.announcement.number, now)
                return core.traffic([(key: hoa, value: UInt64(index + 1))], now: now)
            }
        }
        // The pace has been charged for the checks.
        node.advance(.seconds(2))
        node.clear()
        return node
    }

    private static func peer(_ index: Int) -> (HomeAddress, MobileAddress) {
        (HomeAddress(IPAddress(ipv4: 0xCB00_0000 + UInt32(index))), MobileAddress(IPAddress(ipv4: 0xC612_0000 + UInt32(index))))
    }

    /// In the main thread, for malloc tells only of the memory that this one uses. The kernel's side of a peer takes less than 100 more.
    @Test("A peer costs the core less than 310 octets, with all that is kept to find it") @MainActor
    func memory() throws {
        let count = 100_000
        var node: NodeHarness? = try crowd(10)
        let few = mat_allocated_octets()
        node = nil
        node = try crowd(count)
        // What the harness keeps of the kernel is no part of the core.
        node?.forgetKernel()
        let many = mat_allocated_octets()
        #expect(node?.core.peers.count == count)
        let each = (Int(many) - Int(few)) / count
        print("a peer costs the core \(each) octets; \(MemoryLayout<Peer>.size) of them are the peer itself")
        #expect(each > 0 && each <= 310)
    }

    @Test("A move without overlap switches 20,000 peers with a handful of changes, in one transaction, before anything is sent")
    func moves() throws {
        let node = try crowd(20_000)
        let start = ContinuousClock.now
        node.links([H.second])
        let took = ContinuousClock.now - start
        guard case .changeIMT(let changes)? = node.actions.first(where: { if case .log = $0 { false } else { true } }) else {
            Issue.record("the kernel does not come first")
            return
        }
        #expect(changes.contains(.moveOutbound(from: MobileAddress(H.first), to: MobileAddress(H.second))) && changes.count <= 4)
        #expect(node.actions.filter { if case .changeIMT = $0 { true } else { false } }.count == 1)
        print("deciding took \(took)")
        // Nobody is told in the same breath.
        #expect(node.count(.maNotify) == 0)
        #expect(node.imt.outbound.values.allSatisfy { $0.own.address == H.second })
    }

    @Test("Of more peers than people are told of, a quiet one in trouble is not left out for busy ones without; how many there are is said")
    func told() throws {
        let node = try crowd(3000)
        let (quiet, _) = Self.peer(5)
        let nowhere = MappingRecord(hoa: quiet, sequence: node.wall + 1, lifetime: 600, issued: node.wall, locators: [])
        let offered = OfferedRecord(
            SignedMapping(record: nowhere, signature: try #require(Signature([UInt8](repeating: 7, count: 64)))), under: node.peer.certificate)
        node.quietly { core, now in
            core.adopt(offered, for: quiet, isConfirmed: true, now)
            return core.traffic((1000..<2500).map { (key: Self.peer($0).0, value: UInt64(1_000_000)) }, now: now)
        }
        let start = ContinuousClock.now
        let status = node.core.status(now: node.now)
        print("choosing took \(ContinuousClock.now - start)")
        #expect(status.peersCount == 3000 && status.peers.count == NodeStatus.peersMax && status.peersTroubled == 1)
        #expect(status.peersUnreachable == 1 && status.peersOneSided == 0)
        let busy = Set((1000..<2500).map { Self.peer($0).0 })
        #expect(status.peers.filter { !busy.contains($0.hoa) }.map(\.hoa) == [quiet])
        guard case .unreachable? = status.peers.first(where: { $0.hoa == quiet })?.standing else {
            return #expect(status.peers.contains { $0.hoa == quiet })
        }
        // What is wrong with all of them sets none apart.
        node.links([])
        let gone = node.core.status(now: node.now)
        #expect(gone.peersUnreachable == 3000)
        #expect(gone.peersTroubled == 3000 && gone.peers.contains { $0.hoa == quiet })
    }

    @Test("Peers are told in the order of their last traffic, never faster than the pace, and all in the end")
    func paced() throws {
        let count = 4000
        let node = try crowd(count)
        // One has traffic later than the rest.
        let (busy, _) = Self.peer(77)
        node.event { core, now in core.traffic([(key: busy, value: UInt64(999_999))], now: now) }
        node.advance(.seconds(1))
        node.clear()
        let start = node.now.monotonic
        node.links([H.second])
        try node.answerUpdate()
        var first: HomeAddress?
        var told: Set<IPAddress> = []
        var times: [Int64] = []
        while node.now.monotonic - start < .seconds(15) {
            node.advance(.milliseconds(100))
            for sent in node.sent where sent.to.address != H.ownServers[0] { times.append(sent.at) }
            for sent in node.sent where sent.message.type == .maNotify {
                if first == nil { first = Self.hoa(at: sent.to.address) }
                told.insert(sent.to.address)
                node.answer(sent, .maNotifyAck(MANotifyAck(code: .ok, cookie: Cookie(client: sent.message.cookie.client), hoa: node.own.hoa)))
            }
            node.sent = []
        }
        #expect(first == busy)
        #expect(told.count == count)
        // In no second more than the pace and the burst.
        times.sort()
        var low = 0
        var most = 0
        for high in times.indices {
            while times[high] - times[low] >= 1000 { low += 1 }
            most = max(most, high - low + 1)
        }
        print("\(times.count) messages, at most \(most) in a second")
        #expect(most <= 2000 + 256)
    }

    private static func hoa(at place: IPAddress) -> HomeAddress? { place.ipv4.map { HomeAddress(IPAddress(ipv4: $0 - 0xC612_0000 + 0xCB00_0000)) } }

    @Test("An IMS of a hundred peers gets no more HA Notifies than it takes, and nobody is bothered with that")
    func oneServer() throws {
        let node = try crowd(100)
        node.links([H.second])
        try node.answerUpdate()
        let server = IPAddress(ipv4: 0xC058_0000)
        var times: [Int64] = []
        for _ in 0..<300 {
            for sent in node.sent where sent.message.type == .haNotify {
                times.append(sent.at)
                node.answer(sent, .haNotifyAck(HANotifyAck(code: .ok, cookie: node.cookie(sent), hoa: node.own.hoa)))
            }
            #expect(node.sent.allSatisfy { $0.message.type != .haNotify || $0.to.address == server })
            node.sent = []
            node.advance(.milliseconds(100))
        }
        // No peer acked by itself, so each is told by way of the IMS.
        #expect(times.count == 100)
        for (first, last) in zip(times, times.dropFirst(10)) { #expect(last - first >= 250) }
        for (first, last) in zip(times, times.dropFirst(20)) { #expect(last - first >= 1000) }
        #expect(!node.logs.contains { $0.hasPrefix("warning") || $0.contains("HA Notify") })
    }

    @Test("An IMS that says code 7 is left alone for as long as it says")
    func tryLater() throws {
        let node = try crowd(3)
        node.links([H.second])
        try node.answerUpdate()
        let notify = try node.take(.haNotify)
        node.clear()
        node.answer(notify, .haNotifyAck(HANotifyAck(code: .tryLater, cookie: node.cookie(notify), hoa: node.own.hoa, lifetime: 7)))
        node.advance(.milliseconds(6900))
        #expect(!node.sent.contains { $0.haNotify?.peerHoA == notify.haNotify?.peerHoA })
        node.advance(.milliseconds(200))
        #expect(node.sent.contains { $0.haNotify?.peerHoA == notify.haNotify?.peerHoA })
    }

    @Test("Messages to one place share datagrams, 16 and 1232 octets at most")
    func packed() throws {
        let node = try crowd(100)
        node.links([H.second])
        let datagrams = node.actions.compactMap { action -> (octets: [UInt8], to: Endpoint)? in
            switch action {
            case .send(let octets, _, let target), .sendIfRoom(let octets, _, let target): (octets, target)
            default: nil
            }
        }
        let server = Endpoint(IPAddress(ipv4: 0xC058_0000), port: SignalPort.ims)
        let toServer = datagrams.filter { $0.to == server }
        let messages = toServer.map { SignalDatagram.decode($0.octets).count }
        #expect(messages.reduce(0, +) >= 100 && toServer.count < 60)
        #expect(toServer.allSatisfy { $0.octets.count <= SignalDatagram.octetsMax } && messages.allSatisfy { $0 <= SignalDatagram.messagesMax })
    }

    @Test("Polls are spread, and stretch with the number of peers")
    func polls() throws {
        let (count, rate) = (4000, 50)
        let node = try crowd(count) { $0.pollsPerSecond = rate }
        node.sent = []
        var polled: Set<HomeAddress> = []
        var known: Set<UInt32> = []
        for second in 0..<200 {
            node.advance(.seconds(1))
            let polls = node.sent.filter {
                $0.to.port == SignalPort.ims && $0.message.type == .maQuery && $0.query?.hoa != node.own.hoa
                    && known.insert($0.message.sequence).inserted
            }
            polled.formUnion(polls.compactMap { $0.query?.hoa })
            #expect(polls.count <= (second == 0 ? 2 : 1) * rate + rate)
            node.sent = []
        }
        #expect(polled.count == count)
    }
}
