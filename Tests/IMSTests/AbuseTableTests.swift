import MATCore
import MATSignal
import MATTesting
import Testing

@testable import IMSCore

/// The bounded tables, filled to their bounds and beyond.
@Suite("Bounded tables")
struct AbuseTableTests {
    private func host(_ number: Int) -> IPAddress { IPAddress(high: 0x2001_0db8_0000_0000 | UInt64(number), low: 1) }
    private let start = MonotonicTime(nanoseconds: 1_000_000_000)

    @Test("The recency table does what a plain list of uses does")
    func recency() {
        var random = SeededGenerator(seed: 7)
        var table = RecencyTable<Int, Int>()
        var list: [(key: Int, value: Int)] = []
        for step in 0..<20_000 {
            let key = Int.random(in: 0..<60, using: &random)
            let place = list.firstIndex { $0.key == key }
            switch Int.random(in: 0..<8, using: &random) {
            case 0, 1, 2:
                table.use(key, step)
                if let place { list.remove(at: place) }
                list.append((key, step))
            case 3:
                table.use(key)
                if let place { list.append(list.remove(at: place)) }
            case 4:
                table[key] = step
                if let place { list[place].value = step } else { list.append((key, step)) }
            case 5:
                table.remove(key)
                if let place { list.remove(at: place) }
            case 6 where list.count > 30:
                let removed = table.removeOldest()
                #expect(removed?.key == list.first?.key && removed?.value == list.first?.value)
                list.removeFirst()
            default:
                #expect(table[key] == place.map { list[$0].value })
            }
            #expect(table.count == list.count && table.oldest?.key == list.first?.key)
        }
        var order: [Int] = []
        table.forEach { key, _ in order.append(key) }
        #expect(order == list.map(\.key))
    }

    @Test("Sweeps in small pieces find everything that is over")
    func sweep() {
        var table = RecencyTable<Int, Int>()
        for key in 0..<1000 { table.use(key, key) }
        for _ in 0..<25 { table.sweep(steps: 100) { $1 % 3 != 0 } }
        #expect(table.count == 334)
    }

    @Test("A rate table at its bound refuses new keys, goes on for those in use, and forgets none that is not full")
    func rates() {
        var table = RateTable<IPAddress>(perSecond: 10, keysMax: 100)
        for number in 0..<100 {
            let isTaken = table.take(host(number), at: start)
            #expect(isTaken)
        }
        // Beyond the bound, a thousand new ones at the same moment.
        for number in 100..<1100 {
            let isTaken = table.take(host(number), at: start)
            #expect(!isTaken)
        }
        #expect(table.count == 100)
        for number in 0..<100 {
            for _ in 0..<9 {
                let isTaken = table.take(host(number), at: start)
                #expect(isTaken)
            }
            let isEleventhTaken = table.take(host(number), at: start)
            #expect(!isEleventhTaken, "the eleventh within a second")
        }
        // After a second all buckets are full again and can go.
        let later = start + .seconds(1)
        for number in 2000..<2100 {
            let isTaken = table.take(host(number), at: later)
            #expect(isTaken)
        }
        #expect(table.count == 100)
    }

    @Test("Subscriptions: eight per source and HoA, no source takes all of the table, and what ran out makes room")
    func subscriptions() throws {
        var table = SubscriptionTable(perSourceMax: 8, totalMax: 320)
        func subscriber(_ source: Int, port: UInt16, _ seconds: Int = 300) -> SubscriptionTable.Subscriber {
            SubscriptionTable.Subscriber(
                endpoint: Endpoint(host(source), port: port), local: TestServer.local, expires: start + .seconds(seconds))
        }
        func mapping(_ number: Int) -> IPPrefix { IPPrefix(IPAddress(ipv4: 0xC000_0200 + UInt32(number))) }
        for port in UInt16(1)...8 {
            let isTaken = table.add(subscriber(1, port: port), to: mapping(0), now: start)
            #expect(isTaken)
        }
        let isNinthTaken = table.add(subscriber(1, port: 9), to: mapping(0), now: start)
        #expect(!isNinthTaken)
        let isRenewed = table.add(subscriber(1, port: 8), to: mapping(0), now: start)
        #expect(isRenewed, "a renewal")
        // One source wants it all and gets half of it.
        for number in 1..<200 { _ = table.add(subscriber(1, port: 1), to: mapping(number), now: start) }
        #expect(table.count == 160)
        // Others still find room, up to their share and the mapping's.
        for number in 0..<100 { _ = table.add(subscriber(2, port: 1), to: mapping(number), now: start) }
        #expect(table.count == 180)
        for source in 3..<200 { _ = table.add(subscriber(source, port: 1), to: mapping(250), now: start) }
        #expect(table.current(of: mapping(250), now: start).count == 80)
        let isRoomFound = table.add(subscriber(300, port: 1), to: mapping(251), now: start)
        #expect(isRoomFound)
        for source in 301..<600 { _ = table.add(subscriber(source, port: 1), to: mapping(source % 40), now: start) }
        #expect(table.count == 320)
        let isRoomFoundInFull = table.add(subscriber(900, port: 1), to: mapping(252), now: start)
        #expect(!isRoomFoundInFull)
        #expect(table.current(of: mapping(0), now: start).contains { $0.endpoint == Endpoint(host(1), port: 1) }, "nothing in use goes")
        // All run out, and the table is as good as new.
        let later = start + .seconds(301)
        let isRoomFoundAgain = table.add(subscriber(900, port: 1, 600), to: mapping(252), now: later)
        #expect(isRoomFoundAgain)
        for _ in 0..<40 { table.sweep(later, steps: 10) }
        #expect(table.count == 1 && table.current(of: mapping(0), now: later).isEmpty)
        table.remove(Endpoint(host(900), port: 1), from: mapping(252))
        #expect(table.count == 0 && table.current(of: mapping(252), now: later).isEmpty)
    }

    @Test("A subscription table that is written and emptied at random holds what a plain dictionary holds")
    func subscriptionModel() {
        var random = SeededGenerator(seed: 3)
        var table = SubscriptionTable(perSourceMax: 100, totalMax: 10_000)
        var model: Set<[Int]> = []
        for _ in 0..<5000 {
            let (mapping, source) = (Int.random(in: 0..<6, using: &random), Int.random(in: 0..<30, using: &random))
            let endpoint = Endpoint(host(source), port: 6289)
            let prefix = IPPrefix(IPAddress(ipv4: 0xC000_0200 + UInt32(mapping)))
            if Bool.random(using: &random) {
                let subscriber = SubscriptionTable.Subscriber(endpoint: endpoint, local: TestServer.local, expires: start + .seconds(9))
                let isAdded = table.add(subscriber, to: prefix, now: start)
                #expect(isAdded)
                model.insert([mapping, source])
            } else {
                table.remove(endpoint, from: prefix)
                model.remove([mapping, source])
            }
        }
        #expect(table.count == model.count)
        for mapping in 0..<6 {
            let prefix = IPPrefix(IPAddress(ipv4: 0xC000_0200 + UInt32(mapping)))
            let held = Set(table.current(of: prefix, now: start).map { Int($0.endpoint.address.high & 0xFFFF) })
            #expect(held == Set(model.filter { $0[0] == mapping }.map { $0[1] }))
        }
    }

    @Test("Remembered mappings: strangers that nobody asks for push out each other, not what own nodes asked for")
    func remembered() throws {
        let issuer = try key(150)
        let now = Now(monotonic: start, wallMilliseconds: TestServer.start)
        func certified(_ number: Int) throws -> CertifiedMapping {
            let node = try TestNode("10.\(number / 250).\(number % 250).1", seed: 1, issuer: issuer, notBefore: TestServer.start - 1000)
            return try node.record(["172.20.\(number / 250).\(number % 250 + 1)"], sequence: TestServer.start)
        }
        let template = try certified(0)
        var table = RememberedTable(entriesMax: 40)
        // Only the record matters to the table, so one signature serves for all.
        func made(_ number: Int) -> CertifiedMapping {
            var record = template.record
            record.hoa = HomeAddress(IPAddress(ipv4: 0x0A00_0000 + UInt32(number)))
            record.locators = [Locator(MobileAddress(IPAddress(ipv4: 0xAC14_0000 + UInt32(number))))]
            return CertifiedMapping(
                mapping: SignedMapping(record: record, signature: template.mapping.signature), certificate: template.certificate)
        }
        func moa(_ number: Int) -> MobileAddress { MobileAddress(IPAddress(ipv4: 0xAC14_0000 + UInt32(number))) }
        for number in 1...10 {
            table.set(made(number), isConfirmed: true, now: now)
            let found = table.use(holding: moa(number), now: now)
            #expect(found != nil)
        }
        for number in 100..<2000 { table.set(made(number), isConfirmed: false, now: now) }
        #expect(table.count == 40 && table.unconfirmedCount == 30)
        for number in 1...10 { #expect(table.entry(holding: moa(number), now: now)?.certified == made(number)) }
        #expect(table.entry(holding: moa(1999), now: now) != nil && table.entry(holding: moa(1900), now: now) == nil)
        // Those asked for can't take the whole table either.
        for number in 3000..<3100 {
            table.set(made(number), isConfirmed: true, now: now)
            _ = table.use(holding: moa(number), now: now)
        }
        #expect(table.count == 40)
        table.set(made(5000), isConfirmed: true, now: now)
        #expect(table.entry(covering: HomeAddress(IPAddress(ipv4: 0x0A00_0000 + 5000))) != nil && table.count == 40)
        // What a record lists without proof does not take a MoA from a mapping that its IMS has confirmed.
        var thief = made(6000)
        var record = thief.record
        record.locators.append(Locator(moa(5000)))
        thief = CertifiedMapping(mapping: SignedMapping(record: record, signature: thief.mapping.signature), certificate: thief.certificate)
        table.set(thief, isConfirmed: true, from: moa(6000).address, now: now)
        #expect(table.entry(holding: moa(5000), now: now)?.certified == made(5000))
        #expect(table.entry(holding: moa(6000), now: now)?.certified == thief)
        table.set(thief, isConfirmed: false, from: moa(5000).address, now: now)
        #expect(table.entry(holding: moa(5000), now: now)?.certified == thief)
        // All expire.
        let later = Now(monotonic: start + .seconds(700), wallMilliseconds: TestServer.start + 700_000)
        for _ in 0..<10 { table.sweep(later, steps: 10) }
        #expect(table.count == 0 && table.unconfirmedCount == 0 && table.entry(holding: moa(5000), now: now) == nil)
    }

    @Test("Served prefixes are found among thousands, the longest first")
    func served() {
        let served =
            (0..<4000).map { ServedPrefix(prefix: IPPrefix(covering: IPAddress(ipv4: 0x0A00_0000 + UInt32($0) << 8), length: 120)) }
            + [ServedPrefix(prefix: prefix("10.0.0.0/8")), ServedPrefix(prefix: prefix("2001:db8::/32"))]
        var configuration = IMSCoreConfiguration(served: served)
        #expect(configuration.served(covering: address("10.1.2.3"))?.prefix == prefix("10.1.2.0/24"))
        #expect(configuration.served(covering: address("10.200.2.3"))?.prefix == prefix("10.0.0.0/8"))
        #expect(configuration.served(covering: prefix("10.1.2.0/23"))?.prefix == prefix("10.0.0.0/8"))
        #expect(configuration.served(covering: address("2001:db8:1::1"))?.prefix == prefix("2001:db8::/32"))
        #expect(configuration.served(covering: address("192.0.2.1")) == nil)
        configuration.served = [ServedPrefix(prefix: prefix("192.0.2.0/24"))]
        #expect(configuration.served(covering: address("192.0.2.1")) != nil && configuration.served(covering: address("10.1.2.3")) == nil)
    }

    @Test("Text of others reaches the log as one visible line")
    func printable() {
        #expect("plain text, ünï".printable == "plain text, ünï")
        #expect("two\nlines\u{1B}[2J\u{202E}".printable == "two\\u{a}lines\\u{1b}[2J\\u{202e}")
    }
}
