import MATSignal
import Testing

@testable import IMTPlan

/// Entries, held packets and configurations as values.
@Suite("Values of the plan")
struct PlanValueTests {
    @Test("Changes are applied in order, and only differences reach the kernel")
    func modelDifferences() throws {
        var model = TranslationModel()
        let home = HomePair(own: HomeAddress(IPAddress(ipv4: 1)), peer: HomeAddress(IPAddress(ipv4: 2)))
        let first = MobilePair(own: MobileAddress(IPAddress(ipv4: 3)), peer: MobileAddress(IPAddress(ipv4: 4)))
        let second = MobilePair(own: MobileAddress(IPAddress(ipv4: 5)), peer: MobileAddress(IPAddress(ipv4: 4)))
        try model.apply([
            .setOutbound(home, .rewritten(first)), .setOutbound(home, .rewritten(second)), .setPlain(IPAddress(ipv4: 9), lifetime: .seconds(1)),
        ])
        let added = model.differences(from: TranslationModel(), family: .ipv4)
        // The entry, what its path is, that it is mapped, and the plain address.
        #expect(added.flatMap(\.added).count == 4 && added.allSatisfy { $0.removed.isEmpty })
        var moved = model
        try moved.apply([.setOutbound(home, .rewritten(first)), .removeInbound(peer: first.peer, own: home.own), .removePlain(IPAddress(ipv4: 77))])
        let change = moved.differences(from: model, family: .ipv4)
        // Another path, and neither it nor the old one was in use by anybody else.
        #expect(change.flatMap(\.added).count == 2 && change.flatMap(\.removed).count == 2)
        var many = model
        try many.apply((10..<50).map { .setOutbound(HomePair(own: home.own, peer: HomeAddress(IPAddress(ipv4: $0))), .rewritten(second)) })
        var elsewhere = many
        try elsewhere.apply([.moveOutbound(from: second.own, to: first.own)])
        let step = elsewhere.differences(from: many, family: .ipv4)
        #expect(step.flatMap(\.added).count == 1 && elsewhere.outbound.values.allSatisfy { $0.own == first.own })
        #expect(moved.differences(from: model, family: .ipv6).allSatisfy { $0.added.isEmpty && $0.removed.isEmpty })
    }

    @Test("What the kernel remembers of a path reads back to it")
    func paths() {
        let path = DeparturePath(own: HomeAddress(IPAddress(high: 1, low: 2)), moa: MobileAddress(IPAddress(high: 3, low: 4)))
        #expect(DeparturePath(data: path.data) == path && DeparturePath(data: [1, 2, 3]) == nil)
        #expect(TranslationModel.number(TranslationModel.octets(7)) == 7 && TranslationModel.number([7]) == nil)
    }

    @Test("A plain flow's elements are read and written as the rules look them up")
    func plainFlow() throws {
        // 10.9.0.2 . 10.1.0.2 . udp . 53 . 4000
        let noted: [UInt8] = [10, 9, 0, 2, 10, 1, 0, 2, 17, 0, 0, 0, 0, 53, 0, 0, 0x0F, 0xA0, 0, 0]
        var flow = try #require(PlainFlow(element: noted, family: .ipv4))
        flow.peerHome = HomeAddress(IPAddress(ipv4: 0xC633_6401))
        #expect(flow.element.key == [198, 51, 100, 1, 17, 0, 0, 0, 0, 53, 0, 0, 0x0F, 0xA0, 0, 0])
        #expect(flow.element.data == [10, 9, 0, 2, 10, 1, 0, 2])
        for length in 0..<noted.count { #expect(PlainFlow(element: Array(noted.prefix(length)), family: .ipv4) == nil) }
    }

    /// 10.0.0.1:1000 -> 10.0.0.2:2000, TCP, flags as given.
    private func tcp(flags: UInt8) -> [UInt8] {
        [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
            + [0x03, 0xE8, 0x07, 0xD0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]
    }

    @Test("Held packets say who talks to whom and whether they open a connection")
    func heldPacket() throws {
        let syn = try #require(HeldPacket(tcp(flags: 0x02)))
        #expect(syn.opensConnection && syn.source.description == "10.0.0.1" && syn.destinationPort == 2000)
        #expect(HeldPacket(tcp(flags: 0x12))?.opensConnection == false)
        #expect(HeldPacket(tcp(flags: 0x10))?.opensConnection == false)
        // IPv6, hop-by-hop options, then an echo request.
        let six: [UInt8] =
            [0x60, 0, 0, 0, 0, 16, 0, 64] + [UInt8](repeating: 0, count: 15) + [1] + [UInt8](repeating: 0, count: 15) + [2]
        let echo = six + [58, 0, 1, 4, 0, 0, 0, 0] + [128, 0, 0, 0, 0, 1, 0, 1]
        let packet = try #require(HeldPacket(echo))
        #expect(packet.protocolNumber == 58 && packet.opensConnection)
    }

    @Test("No cut or corrupted packet is more than refused or misread")
    func heldPacketHostile() {
        let whole = tcp(flags: 2)
        for length in 0..<whole.count { #expect(HeldPacket(whole.prefix(length)) == nil) }
        for index in whole.indices {
            for value in [UInt8(0), 0x46, 0x60, 0x7F, 0x80, 0xFF] {
                var broken = whole
                broken[index] = value
                _ = HeldPacket(broken)
                #expect(ChecksumCompletion.complete(broken).count == broken.count)
            }
        }
    }

    @Test("A checksum that a network card was to finish is finished; a wrong one is left wrong")
    func checksums() {
        var packet = tcp(flags: 2)
        // The pseudo header's sum: addresses, protocol, length 20.
        let partial = ChecksumCompletion.fold(ChecksumCompletion.sum(packet[12..<20]) + 6 + 20)
        packet[36] = UInt8(partial >> 8)
        packet[37] = UInt8(partial & 0xFF)
        let finished = ChecksumCompletion.complete(packet)
        #expect(HeldPacket(copy: packet, isOpener: nil)?.bytes == finished)
        let check = ChecksumCompletion.fold(
            ChecksumCompletion.sum(finished[12..<20]) + 6 + 20 + ChecksumCompletion.sum(finished[20...]))
        #expect(check == 0xFFFF)
        #expect(ChecksumCompletion.complete(finished) == finished)
        packet[37] ^= 1
        #expect(ChecksumCompletion.complete(packet) == packet)
        #expect(HeldPacket(copy: packet, isOpener: nil)?.bytes == packet)
    }

    @Test("Likewise in IPv6, between addresses whose every octet counts")
    func checksumsOfIPv6() {
        let addresses = (0..<32).map { UInt8($0 * 7 + 0x20) }
        var packet: [UInt8] = [0x60, 0, 0, 0, 0, 12, 17, 64] + addresses + [0x03, 0xE8, 0x07, 0xD0, 0, 12, 0, 0, 1, 2, 3, 4]
        let partial = ChecksumCompletion.fold(ChecksumCompletion.sum(addresses) + 17 + 12)
        packet.replaceSubrange(46..<48, with: [UInt8(partial >> 8), UInt8(partial & 0xFF)])
        let finished = ChecksumCompletion.complete(packet)
        #expect(finished != packet)
        #expect(ChecksumCompletion.fold(ChecksumCompletion.sum(addresses) + 17 + 12 + ChecksumCompletion.sum(finished[40...])) == 0xFFFF)
        packet[47] ^= 1
        #expect(ChecksumCompletion.complete(packet) == packet)
    }

    @Test("The route plan gives a MoA its own link, and a HoA that is a MoA only what was not captured")
    func routePlan() {
        let home = HomeAddress(IPAddress(ipv4: 0x0A09_0002))
        let moa = LocalAddress(address: home.address, interface: "eth0", interfaceIndex: 4, prefixLength: 24)
        let other = LocalAddress(address: IPAddress(ipv4: 0x0A01_0002), interface: "wlan", interfaceIndex: 5, prefixLength: 24)
        let plan = RoutePlan(
            configuration: IMTConfiguration(homeAddresses: [home], traffic: .nothing), tables: LinkTables(),
            locators: [moa, other],
            deviceIndex: 9, plain: [], homes: [home.address])
        let rules = plan.rules()
        #expect(rules.contains(KernelRule(family: .ipv4, priority: 6270, source: IPPrefix(other.address), table: 6293)))
        #expect(rules.contains(KernelRule(family: .ipv4, priority: 6282, source: IPPrefix(moa.address), table: 6292)))
        #expect(!rules.contains { $0.priority == 6270 && $0.source == IPPrefix(moa.address) })
        #expect(!plan.captureRoutes().contains { $0.interfaceIndex == 9 })
    }

    @Test("An impossible configuration is refused with its reason")
    func configuration() {
        #expect(throws: PlanError.self) { try IMTConfiguration(deviceName: "a-name-too-long-for-linux").check() }
        #expect(throws: PlanError.self) { try IMTConfiguration(routingTable: 254).check() }
        #expect(throws: PlanError.self) {
            try IMTConfiguration(homeAddresses: [HomeAddress(IPAddress(ipv4: 0xE000_0001))]).check()
        }
    }
}
