import CLinux
import Foundation
import IMTPlan
import MATSignal
import Testing

@testable import IMTPlan

@Suite("Many entries", .serialized) struct ManyEntriesTests {
    private static let own = HomeAddress(IPAddress(ipv4: 0xC000_0201))

    private static func changes(_ range: Range<Int>, from moa: MobileAddress) -> [IMTChange] {
        range.flatMap { index -> [IMTChange] in
            let home = HomePair(own: own, peer: HomeAddress(IPAddress(ipv4: 0xC633_0000 + UInt32(index))))
            let mobile = MobilePair(own: moa, peer: MobileAddress(IPAddress(ipv4: 0x0B00_0000 + UInt32(index))))
            return [.setOutbound(home, .rewritten(mobile)), .setInbound(peer: mobile.peer, home)]
        }
    }

    /// In the main thread, for malloc tells only of the memory that this one uses.
    @Test("What is known of a peer's entries and route takes less than 100 octets") @MainActor
    func memory() throws {
        let count = 100_000
        let moa = MobileAddress(IPAddress(ipv4: 0x0A01_0002))
        let before = mat_allocated_octets()
        var model = TranslationModel()
        var thrown = AddressSet()
        for start in stride(from: 0, to: count, by: 1000) {
            let changes = Self.changes(start..<start + 1000, from: moa)
            try model.apply(changes)
            for case .setOutbound(let home, _) in changes { thrown.insert(home.peer.address) }
        }
        let each = (Int(mat_allocated_octets()) - Int(before)) / count
        #expect(model.entries.departuresCount == count && model.entries.arrivalsCount == count && thrown.count == count)
        print("a peer's entries and route take \(each) octets")
        #expect(each > 0 && each <= 100)
    }

    @Test("Departures and arrivals come, change and go as in two dictionaries")
    func table() {
        var random = SystemRandomNumberGenerator()
        var table = EntryTable()
        var departures: [HomePair: Departure] = [:]
        var arrivals: [Arrival: HomeAddress] = [:]
        func address(_ most: UInt32) -> IPAddress { IPAddress(ipv4: UInt32.random(in: 1...most, using: &random)) }
        for _ in 0..<20_000 {
            let own = HomeAddress(address(2))
            let (peer, moa) = (HomeAddress(address(40)), MobileAddress(address(40)))
            let isRemoved = UInt32.random(in: 0..<3, using: &random) == 0
            if Bool.random(using: &random) {
                let pair = HomePair(own: own, peer: peer)
                let departure = isRemoved ? nil : Departure(path: UInt32.random(in: 1...3, using: &random), peer: moa)
                table[pair] = departure
                departures[pair] = departure
            } else {
                let arrival = Arrival(peer: moa, own: own)
                table[arrival] = isRemoved ? nil : peer
                arrivals[arrival] = isRemoved ? nil : peer
            }
        }
        #expect(Dictionary(uniqueKeysWithValues: table.departures.map { ($0.key, $0.value) }) == departures)
        #expect(Dictionary(uniqueKeysWithValues: table.arrivals.map { ($0.key, $0.value) }) == arrivals)
        #expect(departures.allSatisfy { table[$0.key] == $0.value } && arrivals.allSatisfy { table[$0.key] == $0.value })
    }

    @Test(
        "A move of many peers is one change of the kernel, and their routes outlast a time without any network",
        .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
    func moves() throws {
        let net = try Topology()
        try net.mn.start(Topology.mnConfiguration)
        try net.mn.useLocators(on: "wlan", "cell")
        let (first, second) = (MobileAddress(try address("10.1.0.2")), MobileAddress(try address("10.2.0.2")))
        let count = 10_000
        try net.mn.ask { try $0.commit(Self.changes(0..<count, from: first)) }
        let routes = {
            try net.mn.namespace.run("ip route show table 6288 | grep -c '^throw 198\\.51\\.'").trimmingCharacters(in: .whitespacesAndNewlines)
        }
        #expect(try routes() == "\(count)")
        let took = try net.mn.ask { kernel in
            let start = ContinuousClock.now
            try kernel.commit([.moveOutbound(from: first, to: second)])
            return ContinuousClock.now - start
        }
        print("moving \(count) peers took \(took)")
        #expect(took < .milliseconds(150))
        #expect(try net.mn.ask { $0.outbound.values.allSatisfy { $0.own == second } })
        #expect(try net.mn.namespace.run("ip route get 198.51.0.7 from 192.0.2.1 ").contains("dev cell"))
        // Between two networks.
        try net.mn.namespace.run("ip link set cell down")
        usleep(100_000)
        #expect(try net.mn.ask { $0.canLeave(to: IPAddress(ipv4: 0xC633_0007)) } == false)
        #expect(try routes() == "\(count)")
        try net.mn.ask { try $0.commit([.moveOutbound(from: second, to: first)]) }
        #expect(try net.mn.ask { $0.canLeave(to: IPAddress(ipv4: 0xC633_0007)) })
        #expect(try net.mn.namespace.run("ip route get 198.51.0.7 from 192.0.2.1 ").contains("dev wlan"))
        #expect(try routes() == "\(count)" && net.mn.failures.isEmpty)
    }

    @Test(
        "What an earlier run left goes in one change of the kernel, also if it is more than what is remembered as forgotten",
        .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
    func unclaimed() throws {
        let net = try Topology()
        try net.mn.start(Topology.mnConfiguration)
        try net.mn.useLocators(on: "wlan", "cell")
        let changes = Self.changes(0..<Int(TranslationRuleset.forgottenMax) + 100, from: MobileAddress(try address("10.1.0.2")))
        try net.mn.ask { try $0.commit(changes) }
        try net.mn.ask { kernel in
            try kernel.commit(
                changes.compactMap { change in
                    guard case .setOutbound(let home, _) = change else { return nil }
                    return .removeOutbound(home)
                })
        }
        #expect(try net.mn.ask { $0.outbound.isEmpty } && net.mn.failures.isEmpty, "\(net.mn.failures)")
        #expect(try net.mn.namespace.run("nft list set ip mat forgotten | grep -c 198.51.").trimmingCharacters(in: .whitespacesAndNewlines) != "0")
        #expect(try net.mn.namespace.run("nft list map ip mat out1 2>&1 || true").contains("No such file"))
    }
}
