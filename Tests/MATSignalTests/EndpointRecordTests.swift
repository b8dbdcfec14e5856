import MATSignal
import Testing

/// protocol.md section 11.1: records that list endpoints and relays.
@Suite("Records with endpoints")
struct EndpointRecordTests {
    private static let wall: UInt64 = 1_790_000_000_000
    private static let hoa = HomeAddress(IPAddress(ipv4: 0xC000_0201))

    private static func record(_ places: [MappingRecord.Place], lifetime: UInt32 = 600) -> MappingRecord {
        MappingRecord(hoa: hoa, sequence: wall, lifetime: lifetime, issued: wall, places: places)
    }

    private static func address(_ number: UInt8) -> IPAddress { IPAddress(ipv4: 0xC633_6400 | UInt32(number)) }
    private static func moa(_ number: UInt8, _ preference: UInt8 = 10) -> MappingRecord.Place {
        .moa(Locator(MobileAddress(address(number)), preference: preference))
    }
    private static func endpoint(_ number: UInt8, _ port: UInt16 = 41000, _ preference: UInt8 = 20) -> MappingRecord.Place {
        .endpoint(Endpoint(address(number), port: port), preference: preference)
    }
    private static func relay(_ number: UInt8, _ preference: UInt8 = 250, port: UInt16 = 6290) -> MappingRecord.Place {
        .relay(Endpoint(address(number), port: port), preference: preference)
    }

    private func fault(_ octets: [UInt8]) -> String? {
        do throws(SignalError) {
            _ = try MappingRecord(octets: octets)
            return nil
        } catch {
            return error.reason
        }
    }

    /// The same octets but for some, in the locator of this number.
    private func changed(_ record: MappingRecord, _ locator: Int, _ octets: [Int: UInt8]) -> [UInt8] {
        var value = record.octets
        for (place, octet) in octets { value[40 + 24 * locator + place] = octet }
        return value
    }

    @Test("What a record lists decides of flag E and of the size of its locators")
    func flag() throws {
        let plain = Self.record([Self.moa(1), Self.moa(2)])
        #expect(plain.octets.count == 80 && plain.octets[17] == 0)
        let mixed = Self.record([Self.moa(1), Self.endpoint(2), Self.relay(3)])
        #expect(mixed.octets.count == 40 + 3 * 24 && mixed.octets[17] == 1 && mixed.octets[19] == 3)
        for record in [plain, mixed, Self.record([]), Self.record([Self.relay(1)]), Self.record([Self.endpoint(1)])] {
            #expect(try MappingRecord(octets: record.octets) == record)
            #expect(record.octetsCount == record.octets.count)
        }
        #expect(mixed.locators.map(\.moa.address) == [Self.address(1)])
        #expect(mixed.endpoints == [Endpoint(Self.address(2), port: 41000)] && mixed.relays == [Endpoint(Self.address(3), port: 6290)])
        #expect(mixed.lists(MobileAddress(Self.address(1))) && !mixed.lists(MobileAddress(Self.address(2))))
        #expect(mixed.lists(Endpoint(Self.address(1), port: SignalPort.node)), "a MoA is an endpoint at the node port")
        #expect(mixed.lists(Endpoint(Self.address(2), port: 41000)) && !mixed.lists(Endpoint(Self.address(2), port: SignalPort.node)))
        #expect(!mixed.lists(Endpoint(Self.address(3), port: 6290)), "a relay is not where the node is")
    }

    @Test("What breaks section 11.1 is malformed")
    func malformed() {
        let mixed = Self.record([Self.moa(1), Self.endpoint(2), Self.relay(3)])
        let (kind, length, port, zero) = (18, 16, 20, 22)
        for (octets, expected) in [
            (changed(mixed, 0, [port + 1: 1]), "locator 198.51.100.1 has port 1, which only endpoints and relays have"),
            (changed(mixed, 1, [port: 0, port + 1: 0]), "the endpoint or relay 198.51.100.2 has port 0"),
            (changed(mixed, 2, [port: 0, port + 1: 0]), "the endpoint or relay 198.51.100.3 has port 0"),
            (changed(mixed, 1, [length: 127]), "locator 198.51.100.2 does not fit prefix length 127, which has to be 128"),
            (changed(mixed, 2, [length: 0]), "locator 198.51.100.3 does not fit prefix length 0, which has to be 128"),
            (changed(mixed, 0, [length: 127]), "locator 198.51.100.1 does not fit prefix length 127, which has to be 128"),
            (changed(mixed, 0, [19: 1]), "MAPPING has reserved octets that are not zero"),
            (changed(mixed, 1, [zero: 1]), "MAPPING has reserved octets that are not zero"),
            (changed(mixed, 2, [zero + 1: 1]), "MAPPING has reserved octets that are not zero"),
            (changed(mixed, 1, [12: 127]), "locator is 127.51.100.2, which no host can have here"),
            (changed(Self.record([Self.moa(1), Self.endpoint(2)]), 1, [kind: 0, port: 0, port + 1: 0]), "MAPPING has flag E, and lists neither"),
            (Self.record([Self.endpoint(2), Self.endpoint(2)]).octets, "MAPPING lists the locator 198.51.100.2 twice"),
            (Self.record([Self.moa(2), Self.endpoint(2, 6289)]).octets, "MAPPING lists the locator 198.51.100.2 twice"),
            (Self.record([Self.endpoint(2, 6289), Self.moa(2)]).octets, "MAPPING lists the locator 198.51.100.2 twice"),
            (Self.record([Self.relay(2), Self.relay(2)]).octets, "MAPPING lists the locator 198.51.100.2 twice"),
            (Self.record([Self.moa(1)] + (2...6).map { Self.relay($0) }).octets, "MAPPING lists 5 relays, at most 4"),
            (Self.record([Self.moa(1, 250), Self.relay(2, 250)]).octets, "MAPPING prefers the relay 198.51.100.2"),
            (Self.record([Self.relay(2, 5), Self.endpoint(1, 41000, 10)]).octets, "MAPPING prefers the relay 198.51.100.2"),
            (Self.record([Self.endpoint(1)], lifetime: 3601).octets, "MAPPING lifetime of 3601 s, at most 3600"),
            (Self.record((1...9).map { Self.endpoint($0) }).octets, "MAPPING of 9 locators, at most 8"),
            (Array(mixed.octets.dropLast(4)), "MAPPING of 108 octets, not 40 and 3 times 24"),
            (mixed.octets + [0, 0, 0, 0], "MAPPING of 116 octets, not 40 and 3 times 24"),
        ] as [([UInt8], String)] {
            let fault = fault(octets)
            #expect(fault?.hasPrefix(expected) == true, "\(fault ?? "accepted"), not \(expected)")
        }
        var withdrawal = Self.record([]).octets
        withdrawal[17] = 1
        #expect(fault(withdrawal)?.hasPrefix("MAPPING has flag E") == true)
        for bit in 1..<8 {
            var flags = mixed.octets
            flags[17] |= 1 << bit
            #expect(fault(flags) == "MAPPING has reserved octets that are not zero", "flag \(bit)")
        }
    }

    @Test("What is allowed: other families, the same address at another port, four relays, an endpoint at the HoA's own address")
    func allowed() throws {
        let other = Endpoint(IPAddress(high: 0x2001_0DB8_00AA_0000, low: 7), port: 6289)
        for places in [
            [.endpoint(other, preference: 10), .relay(Endpoint(other.address, port: 6290), preference: 20)],
            [Self.endpoint(2), Self.endpoint(2, 41001)],
            [Self.moa(2), Self.endpoint(2, 41001)],
            [Self.moa(1)] + (2...5).map { Self.relay($0, 250) },
            (1...4).map { Self.relay($0, 0) },
            (1...8).map { Self.endpoint($0) },
            [Self.endpoint(2, 1, 254), Self.relay(3, 255)],
            [.moa(Locator(MobileAddress(Self.hoa.address))), Self.relay(3)],
        ] as [[MappingRecord.Place]] {
            let record = Self.record(places)
            #expect(try MappingRecord(octets: record.octets) == record)
            #expect(!record.isAtHome)
        }
        let prefix = MappingRecord(
            hoa: HomeAddress(IPAddress(high: 0x2001_0DB8_0100_0000, low: 0)), prefixLength: 56, sequence: 1, lifetime: 600, issued: 1,
            places: [
                .moa(Locator(MobileAddress(IPAddress(high: 0x2001_0DB8_0200_0000, low: 0)), prefixLength: 56)), Self.endpoint(2),
            ])
        #expect(try MappingRecord(octets: prefix.octets) == prefix, "an endpoint is one address whatever the HoA's prefix is")
        // What is unusual between networks is for nodes to skip, and not malformed.
        let other10 = Self.record([.endpoint(Endpoint(IPAddress(ipv4: 0x0A00_0001), port: 6289), preference: 1)])
        #expect(fault(other10.octets) == nil)
    }

    @Test("Locators of an unknown kind are skipped and stay in what is signed")
    func unknownKinds() throws {
        let key = try #require(SigningKey(seed: [UInt8](repeating: 1, count: 32)))
        let octets = changed(
            Self.record([Self.moa(1), Self.endpoint(2), Self.relay(3)]), 1,
            [0: 0xFF, 16: 3, 17: 255, 18: 7, 19: 9, 20: 0, 21: 0, 22: 0xAB, 23: 0xCD])
        let record = try MappingRecord(octets: octets)
        #expect(record.octets == octets)
        #expect(record.locators.count == 1 && record.endpoints.isEmpty && record.relays.count == 1)
        guard case .unknown(let place) = record.places[1] else { return #expect(Bool(false)) }
        #expect(place.kind == 7)
        let mapping = try #require(record.signed(with: key))
        try mapping.verifySignature(by: key.publicKey)
        let update = SignalMessage(
            sequence: 1,
            .maNotify(MANotify(cookie: Cookie(client: 1), record: EnclosedRecord(mapping: mapping, certificate: .id(CertificateID(rawValue: 1))))))
        #expect(SignalDatagram.decode(update.octets) == [.message(update, octetsCount: update.octets.count)])
        // One alone is reason enough for flag E, twice the same is none of ours.
        let alone = changed(Self.record([Self.endpoint(1)]), 0, [18: 200])
        #expect(try MappingRecord(octets: alone).octets == alone)
        let twice = changed(Self.record([Self.endpoint(1), Self.endpoint(2)]), 1, [15: 1, 18: 3])
        #expect(try MappingRecord(octets: twice).octets == twice)
    }

    @Test("Setting the MoAs alone keeps the rest, and makes a record without endpoints one without flag E")
    func locators() throws {
        var record = Self.record([Self.endpoint(2), Self.relay(3)])
        record.locators = [Locator(MobileAddress(Self.address(1)), preference: 1)]
        #expect(record.places == [Self.moa(1, 1), Self.endpoint(2), Self.relay(3)])
        record.places.removeAll { if case .moa = $0 { false } else { true } }
        #expect(!record.hasKinds && record.octets.count == 60)
    }

    @Test("Random records come back octet for octet, and every damaged octet is refused or kept")
    func random() {
        var random = SplitMix(state: 7)
        var (kept, refused) = (0, 0)
        for _ in 0..<300 {
            let count = UInt8.random(in: 1...8, using: &random)
            let places = (1...count).map { number -> MappingRecord.Place in
                switch Int.random(in: 0..<3, using: &random) {
                case 0: Self.moa(number, number)
                case 1: Self.endpoint(number, .random(in: 1...UInt16.max, using: &random), number)
                default: number <= 4 ? Self.relay(number, 200 + number) : Self.endpoint(number)
                }
            }
            let octets = Self.record(places).octets
            #expect((try? MappingRecord(octets: octets)) == Self.record(places))
            for index in octets.indices {
                var damaged = octets
                damaged[index] = UInt8.random(in: 0...255, using: &random)
                if let record = try? MappingRecord(octets: damaged) {
                    kept += 1
                    #expect(record.octets == damaged)
                } else {
                    refused += 1
                }
            }
        }
        #expect(kept > 1000 && refused > 1000, "\(kept) kept, \(refused) refused")
    }
}
