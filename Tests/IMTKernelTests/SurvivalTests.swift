import Foundation
import Glibc
import MATRuntime
import MATSignal
import Testing

@testable import IMTKernel
@testable import IMTPlan

/// Whatever the agent knows by then: no packet of a mapped conversation is answered by, or delivered to, the wrong party, and none
/// leaves with a HoA. The kernel alone sees to that; see Topology for the drawing.
@Suite("What a connection survives", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct SurvivalTests {
    /// A TCP connection and UDP sockets connected to each other, from mn to cn.
    private final class Conversation {
        let client: TestSocket, server: TestSocket
        private let listener: TestSocket
        let near: TestSocket, far: TestSocket

        init(_ net: Topology, _ family: Family, from own: IPAddress, to peer: IPAddress, port: UInt16) throws {
            (client, server, listener) = try connectTCP(net, to: "\(peer)", port: port)
            near = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
            far = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
            try near.bind(own, port: port)
            try far.bind(peer, port: port)
            try near.connect(peer, port: port)
            try far.connect(own, port: port)
            for socket in [near, far] { socket.setTimeout(seconds: 0.3) }
        }

        /// Both directions of both, cn first. A reset or a refusal throws; a lost datagram is sent again.
        func expectAlive(_ number: UInt8) throws {
            for (from, to) in [(server, client), (client, server)] {
                try from.send([number])
                #expect(try to.receive(1) == [number])
            }
            for (from, to) in [(far, near), (near, far)] {
                #expect(
                    try eventually {
                        try from.send([number])
                        do { return try to.receive(1) == [number] } catch  where errno == EAGAIN { return false }
                    })
            }
        }

        /// cn speaks, and mn may have no way to answer.
        func speak(_ number: UInt8) throws {
            try server.send([number])
            try far.send([number])
        }
    }

    private func change(_ verb: String, _ host: Host, _ address: IPAddress, _ device: String) throws {
        let nodad = verb == "add" && !address.isIPv4 ? " nodad" : ""
        try host.namespace.run("ip addr \(verb) \(address)/\(address.isIPv4 ? 24 : 64) dev \(device)\(nodad)")
    }

    /// With the default route, for IPv4's went with it.
    private func addBack(_ host: Host, _ family: Family, _ moa: IPAddress, _ device: String, _ gateway: IPAddress) throws {
        try change("add", host, moa, device)
        _ = host.namespace.attempt("\(family.ip) route add default via \(gateway) dev \(device) metric 100")
    }

    /// What the agent was given until now, that is, until it has a datagram to nobody that was sent after all else.
    private func heldUntilNow(_ host: Host, _ family: Family) throws -> [HeldPacket] {
        let nobody = try address(family.isIPv4 ? "203.0.113.99" : "2001:db8:f::99")
        try TestSocket(host.namespace, TestSocket.datagram, family).send([0], to: nobody, port: 9)
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += host.takeOutbound()
                return held.contains { $0.destination == nobody }
            })
        return held.filter { $0.destination != nobody }
    }

    /// What has left mn over wlan until now, that is, until a datagram that nothing captures has.
    private func leftUntilNow(_ net: Topology, _ tap: WireTap, _ family: Family) throws -> [[UInt8]] {
        let last = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        last.mark(Topology.mnConfiguration.mark)
        try last.send([0], to: family.nearRouter, port: 9)
        var left: [[UInt8]] = []
        #expect(
            eventually {
                left += tap.take()
                return left.contains { PacketLayout($0).map { $0.protocolNumber == 17 && $0.destination == family.nearRouter } ?? false }
            })
        return left
    }

    @Test("An own address that went, and is back before the agent hears of it, has its packets translated at once", arguments: Family.both)
    func returnsUnheard(_ family: Family) throws {
        let net = try Topology()
        try net.mapBoth()
        let talk = try Conversation(net, family, from: family.own, to: family.peer, port: 6300)
        try talk.expectAlive(1)
        // The agent has heard that it went: told so, it no longer counts as own.
        try change("del", net.mn, family.wlan, "wlan")
        let moa = MobileAddress(family.wlan)
        try net.mn.ask { try $0.commit([.removeOwn(moa)]) }
        try talk.speak(2)
        // And nobody tells it that it is back.
        try net.mn.ask { kernel in
            try addBack(net.mn, family, family.wlan, "wlan", family.nearRouter)
            try talk.speak(3)
            usleep(300_000)
        }
        #expect(try talk.client.receive(2) == [2, 3])
        try talk.expectAlive(4)
        try net.mn.ask { try $0.commit([.setOwn(moa, HomeAddress(family.own))]) }
        try talk.expectAlive(5)
        #expect(try net.mn.ask { $0.tables.model.retired.isEmpty })
        #expect(net.mn.failures.isEmpty, "\(net.mn.failures)")
    }

    @Test("What a killed agent knew of own addresses that went, its successor knows", arguments: Family.both)
    func retiredIsAdopted(_ family: Family) throws {
        let net = try Topology()
        try net.mapBoth()
        let talk = try Conversation(net, family, from: family.own, to: family.peer, port: 6301)
        let moa = MobileAddress(family.wlan)
        try net.mn.ask { try $0.commit([.removeOwn(moa)]) }
        try talk.expectAlive(1)
        net.mn.finish(leaving: true)
        try talk.expectAlive(2)
        try net.mn.start(Topology.mnConfiguration)
        try talk.expectAlive(3)
        #expect(try net.mn.ask { $0.tables.model.retired } == [RetiredLocator(moa: moa, hoa: HomeAddress(family.own))])
        #expect(try net.mn.ask { $0.retiredAddresses.expired(.distantFuture) } == [moa])
    }

    @Test("A stationary server whose link is gone keeps its HoA on mat0, and peers' packets are translated as before", arguments: Family.both)
    func stationaryWithoutLink(_ family: Family) throws {
        let net = try Topology()
        try net.startMobile()
        try net.startAtHome()
        try net.mapAtHome(family)
        let talk = try Conversation(net, family, from: family.own, to: family.far, port: 6302)
        try talk.expectAlive(1)
        let moa = MobileAddress(family.far)
        try change("del", net.cn, family.far, "eth0")
        try net.cn.ask { try $0.commit([.removeOwn(moa)]) }
        // The router still knows the card. What comes is for the server, though it can't answer.
        try talk.client.send([2])
        try talk.near.send([2])
        try net.cn.ask { _ in
            try addBack(net.cn, family, family.far, "eth0", family.farRouter)
            try talk.client.send([3])
            usleep(300_000)
        }
        #expect(try talk.server.receive(2) == [2, 3])
        try net.cn.ask { try $0.commit([.setOwn(moa, HomeAddress(family.far))]) }
        try talk.expectAlive(4)
    }

    @Test(
        "To an address that the agent has not seen yet no segment is reset and no datagram refused; other addresses are answered as ever",
        arguments: Family.both)
    func unseenAddress(_ family: Family) throws {
        let net = try Topology()
        try net.mapBoth()
        // What a limit keeps back looks like no answer.
        try net.unlimitErrors()
        let (seen, unseen) = family.isIPv4 ? ("10.1.0.70", "10.1.0.71") : ("2001:db8:1::70", "2001:db8:1::71")
        func add(_ text: String) throws { try change("add", net.mn, address(text), "wlan") }
        try add(seen)
        /// In place of the agent: these are no MoAs.
        func decide() throws {
            try net.mn.ask { kernel in
                try kernel.setOwnLocators(try kernel.currentLinks().usable.filter { ![seen, unseen].contains($0.address.description) })
            }
        }
        try decide()
        func knock(_ text: String) throws {
            let own = try address(text)
            for header in [[UInt8]([0x14, 0x51, 0x14, 0x52]), [0x14, 0x51, 0x14, 0x53]].enumerated() {
                let transport: [UInt8] =
                    header.offset == 0
                    ? header.element + [0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x10, 0, 0, 0, 0, 0] : header.element + [0, 12, 0, 0, 1, 2, 3, 4]
                let number: UInt8 = header.offset == 0 ? 6 : 17
                let body = RawPacket.finish(
                    transport, checksumAt: header.offset == 0 ? 16 : 6, protocolNumber: number, from: family.farRouter, to: own)
                try RawPacket.inject(RawPacket.ip(from: family.farRouter, to: own, protocolNumber: number, body), in: net.router, bound: true)
            }
            usleep(200_000)
        }
        /// The stack's answer falls into our device, as what goes to an unknown host does.
        func isAnswered(_ text: String) throws -> Bool {
            let own = try address(text)
            return eventually(within: 0.3) { net.mn.takeOutbound().contains { $0.source == own && $0.destination == family.farRouter } }
        }
        func isAnsweredInTime(_ text: String) throws -> Bool {
            try eventually {
                try knock(text)
                return try isAnswered(text)
            }
        }
        // The first packets may wait for the router to find the address's neighbour.
        #expect(try isAnsweredInTime(seen), "an address that is no MoA answers")
        try net.mn.ask { _ in
            try add(unseen)
            try knock(unseen)
        }
        #expect(try !isAnswered(unseen))
        try decide()
        #expect(try isAnsweredInTime(unseen), "decided about, and no MoA")
    }

    @Test("Own addresses that went are as many as the kernel side remembers, the latest, and end with their time")
    func retiredIsBounded() throws {
        var model = TranslationModel()
        let home = HomeAddress(try address("192.0.2.1"))
        let most = TranslationRuleset.retiredMax
        let all = (0...most).map { MobileAddress(IPAddress(ipv4: 0x0A01_0000 + $0)) }
        for moa in all { try model.apply([.setOwn(moa, home), .removeOwn(moa)]) }
        #expect(model.retired.map(\.moa) == Array(all.dropFirst()))
        try model.apply([.setOwn(all[5], home)])
        #expect(!model.retired.contains { $0.moa == all[5] })
        try model.apply([.removeOwn(all[5])])
        #expect(model.retired.last?.moa == all[5] && model.retired.count == Int(most))
        model.release(Set(all))
        #expect(model.retired.isEmpty)
        // What is no own MoA does not become one that went.
        try model.apply([.removeOwn(all[1])])
        #expect(model.retired.isEmpty)
    }

    @Test("HoAs that lost their entry are remembered until they have one again or are plain, and as many as there is room for")
    func forgottenIsBounded() throws {
        var model = TranslationModel()
        let own = HomeAddress(try address("192.0.2.1"))
        let way = MobilePair(own: MobileAddress(try address("10.1.0.2")), peer: MobileAddress(try address("10.9.0.2")))
        let peers = (0..<TranslationRuleset.forgottenMax + 10).map { IPAddress(ipv4: 0xC612_0000 + $0) }
        for peer in peers {
            let pair = HomePair(own: own, peer: HomeAddress(peer))
            let tooMany = model.forgottenTooMany(adding: 1)
            model.dropForgotten(tooMany)
            try model.apply([.setOutbound(pair, .rewritten(way)), .removeOutbound(pair)])
        }
        #expect(model.forgotten.count <= Int(TranslationRuleset.forgottenMax))
        #expect(model.forgotten[peers[0]] == nil && peers.suffix(1000).allSatisfy { model.forgotten[$0] != nil })
        try model.apply([
            .setOutbound(HomePair(own: own, peer: HomeAddress(peers[9000])), .rewritten(way)), .setPlain(peers[9001], lifetime: .seconds(1)),
        ])
        #expect(model.forgotten[peers[9000]] == nil && model.forgotten[peers[9001]] == nil)
        // Removing what has no entry forgets nothing.
        try model.apply([.removeOutbound(HomePair(own: own, peer: HomeAddress(peers[9001])))])
        #expect(model.forgotten[peers[9001]] == nil)
        // All at once.
        let pairs = peers.map { HomePair(own: own, peer: HomeAddress($0)) }
        try model.apply(pairs.map { .setOutbound($0, .rewritten(way)) })
        #expect(model.forgotten.isEmpty)
        try model.apply(pairs.map { .removeOutbound($0) })
        #expect((15_000...Int(TranslationRuleset.forgottenMax)).contains(model.forgotten.count) && model.forgotten[peers[0]] == nil)
        #expect(peers.suffix(1000).allSatisfy { model.forgotten[$0] != nil })
    }

    // MARK: What leaves

    @Test(
        "A socket that kept its route is held when its peer is forgotten: nothing leaves for a HoA, and it goes on when the peer is back",
        arguments: Family.both)
    func forgottenPeer(_ family: Family) throws {
        let net = try Topology()
        try net.mapBoth()
        let talk = try Conversation(net, family, from: family.own, to: family.peer, port: 6310)
        try talk.expectAlive(1)
        let tap = try WireTap(net.router)
        let pair = HomePair(own: HomeAddress(family.own), peer: HomeAddress(family.peer))
        try net.mn.ask { try $0.commit([.removeOutbound(pair)]) }
        _ = net.mn.takeOutbound()
        try talk.near.send([2])
        try talk.client.send([2])
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound()
                return Set(held.map(\.protocolNumber)) == [6, 17]
            }, "\(held)")
        #expect(held.allSatisfy { $0.source == family.own && $0.destination == family.peer })
        try net.mn.map(family.own, family.peer, over: family.wlan, family.far)
        try net.mn.ask { [held] kernel in for packet in held { kernel.releaseOutbound(packet) } }
        #expect(try talk.server.receive(1) == [2])
        #expect(try talk.far.receive(1) == [2])
        try talk.expectAlive(3)
        for packet in tap.take() { for home in Topology.homes { #expect(!names(packet, home), "\(home) on the wire") } }
    }

    @Test("A peer that gets a way of its own, by another own address, gets it for sockets that know the shared way, too", arguments: Family.both)
    func detour(_ family: Family) throws {
        let net = try Topology()
        try net.mapBoth()
        // Others stay on the shared path.
        try net.mn.ask { kernel in
            try kernel.commit(
                (10..<20).map { number in
                    let text = family.isIPv4 ? "203.0.113.\(number)" : "2001:db8:f::\(number)"
                    return .setOutbound(
                        HomePair(own: HomeAddress(family.own), peer: HomeAddress(try address(text))),
                        .rewritten(MobilePair(own: MobileAddress(family.wlan), peer: MobileAddress(family.far))))
                })
        }
        let talk = try Conversation(net, family, from: family.own, to: family.peer, port: 6311)
        try talk.expectAlive(1)
        try net.mn.map(family.own, family.peer, over: family.cell, family.far)
        let before = try net.router.run("cat /sys/class/net/r2/statistics/rx_packets")
        try talk.near.send([2])
        #expect(try talk.far.receive(1) == [2])
        #expect(try net.router.run("cat /sys/class/net/r2/statistics/rx_packets") != before, "it left by the other link")
    }

    @Test("By a wrong way nothing leaves for a HoA without entry, nor from a HoA that no link has: the agent gets it", arguments: Family.both)
    func wrongWay(_ family: Family) throws {
        for isHomed in [false, true] {
            let net = try Topology()
            var configuration = Topology.mnConfiguration
            let own = isHomed ? family.wlan : family.own
            if isHomed { configuration.homeAddresses = [HomeAddress(own)] }
            try net.mn.start(configuration)
            try net.mn.useLocators(on: "wlan")
            try net.mn.map(own, family.peer, over: family.wlan, family.far)
            let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
            try sender.bind(own, port: 6312)
            try sender.send([1], to: family.peer, port: 6312)
            let pair = HomePair(own: HomeAddress(own), peer: HomeAddress(family.peer))
            try net.mn.ask { try $0.commit([.removeOutbound(pair)]) }
            // Somebody's rule, a route kept from before: whatever leads it out of a link.
            try net.mn.namespace.run("\(family.ip) rule add priority 10 to \(family.peer) lookup main")
            let tap = try WireTap(net.router)
            _ = net.mn.takeOutbound()
            // The kernel tells the sender that it did not go.
            _ = try? sender.send([2], to: family.peer, port: 6312)
            var held: [HeldPacket] = []
            #expect(
                eventually {
                    held += net.mn.takeOutbound()
                    return !held.isEmpty
                }, "\(isHomed)")
            #expect(held.allSatisfy { $0.source == own && $0.destination == family.peer })
            // Released as it is, it does not go round, nor out.
            let released = try net.mn.ask { [held] kernel in held.map { kernel.releaseOutbound($0) } }
            #expect(released.allSatisfy { !$0 })
            #expect(try heldUntilNow(net.mn, family).isEmpty)
            #expect(try !leftUntilNow(net, tap, family).contains { names($0, family.peer) }, "a HoA on the wire, \(isHomed)")
            // Found plain, it is what it seems.
            let plain = family.peer
            try net.mn.ask { kernel in
                try kernel.commit([.setPlain(plain, lifetime: .seconds(9))])
                for packet in held { #expect(kernel.releaseOutbound(packet)) }
            }
            #expect(eventually { tap.take().contains { names($0, family.peer) } }, "\(isHomed)")
        }
    }

    @Test("While an IPv6 gateway is silent a released packet is refused once, and does not go round; it goes when the gateway answers")
    func silentGateway() throws {
        let net = try Topology()
        try net.mapBoth()
        let family = Family.both[1]
        let talk = try Conversation(net, family, from: family.own, to: family.peer, port: 6313)
        try talk.expectAlive(1)
        try net.mn.namespace.run("ip -6 neigh replace \(family.nearRouter) dev wlan nud failed")
        _ = net.mn.takeOutbound()
        // A socket that asks for a route now.
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try receiver.bind(family.peer, port: 6314)
        try sender.send([2], to: family.peer, port: 6314)
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound()
                return !held.isEmpty
            }, "the kernel passes over a route whose gateway failed")
        let packet = try #require(held.first)
        #expect(try net.mn.ask { $0.canLeave(to: family.peer) })
        #expect(try !net.mn.ask { $0.releaseOutbound(packet) })
        #expect(try heldUntilNow(net.mn, family).isEmpty, "it came back")
        let card = try net.router.run("cat /sys/class/net/r1/address").trimmingCharacters(in: .whitespacesAndNewlines)
        try net.mn.namespace.run("ip -6 neigh replace \(family.nearRouter) dev wlan lladdr \(card) nud reachable")
        #expect(try net.mn.ask { $0.releaseOutbound(packet) })
        #expect(try receiver.receive(1) == [2])
    }

    // MARK: Flushed rulesets

    @Test("A flushed ruleset, and whoever else would change the tables, passes over them; nothing has to be repaired")
    func flushPassesOver() throws {
        let net = try Topology()
        try net.mapBoth()
        guard try net.mn.ask({ $0.tables.protection }) == .owned else {
            return print("skipped: this kernel has no tables that outlive their owner (Linux 6.9)")
        }
        let talks = try Family.both.map { try Conversation(net, $0, from: $0.own, to: $0.peer, port: $0.isIPv4 ? 6320 : 6322) }
        for talk in talks { try talk.expectAlive(1) }
        for host in [net.mn, net.cn] {
            try host.namespace.run("nft flush ruleset")
            for command in ["delete table ip mat", "flush table ip6 mat", "add rule ip mat deliver drop", "flush map ip mat own"] {
                #expect(host.namespace.attempt("nft \(command)").output.contains("not permitted"), "\(command)")
            }
            #expect(try host.namespace.run("nft list ruleset").contains("flags owner"))
        }
        for talk in talks { try talk.expectAlive(2) }
        #expect(net.mn.repaired.isEmpty && net.cn.repaired.isEmpty, "\(net.mn.repaired) \(net.cn.repaired)")
    }

    @Test("Tables outlive a killed agent, its successor takes them over, and a stop removes them")
    func ownerSucceeds() throws {
        let net = try Topology()
        try net.mapBoth()
        let talks = try Family.both.map { try Conversation(net, $0, from: $0.own, to: $0.peer, port: $0.isIPv4 ? 6321 : 6323) }
        for round in 0..<3 as Range<UInt8> {
            net.mn.finish(leaving: true)
            for talk in talks { try talk.expectAlive(round) }
            #expect(try net.mn.start(Topology.mnConfiguration).outbound.count == 2)
            try net.mn.namespace.run("nft flush ruleset")
            for talk in talks { try talk.expectAlive(round + 100) }
        }
        #expect(net.mn.repaired.isEmpty && net.mn.failures.isEmpty, "\(net.mn.repaired) \(net.mn.failures)")
        // From an agent that did not own them, and to one.
        net.mn.finish(leaving: true)
        var open = Topology.mnConfiguration
        open.protectsTables = false
        try net.mn.start(open)
        for talk in talks { try talk.expectAlive(200) }
        net.mn.finish(leaving: true)
        try net.mn.start(Topology.mnConfiguration)
        for talk in talks { try talk.expectAlive(201) }
        net.mn.finish(leaving: false)
        #expect(try net.mn.namespace.run("nft list ruleset").isEmpty)
    }

    @Test("What a stopped agent has left is taken away on request, and not while an agent runs")
    func leftovers() throws {
        let net = try Topology()
        func remove() throws {
            try net.mn.namespace.inside { try IMTKernel(loop: try EventLoop(), configuration: IMTConfiguration()) { _ in }.removeLeftovers() }
        }
        let before = try net.mn.picture()
        try remove()
        #expect(try net.mn.picture() == before)
        try net.mapBoth()
        #expect(throws: KernelError.self) { try remove() }
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1").status == 0)
        net.mn.finish(leaving: true)
        try remove()
        #expect(try net.mn.picture() == before)
    }
}
