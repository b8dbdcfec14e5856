import MATSignal
import Testing

@Suite("Address families")
struct FamilyTests {
    @Test("IPv4 comes first")
    func order() {
        #expect(AddressFamily.allCases == [.ipv4, .ipv6])
        #expect(AddressFamily.allCases.sorted() == [.ipv4, .ipv6])
    }

    @Test("A family knows what its packets look like")
    func sizes() {
        #expect(AddressFamily.ipv4.addressBits == 32 && AddressFamily.ipv6.addressBits == 128)
        #expect(AddressFamily.ipv4.addressOctets == 4 && AddressFamily.ipv6.addressOctets == 16)
        #expect(AddressFamily.ipv4.headerOctets == 20 && AddressFamily.ipv6.headerOctets == 40)
        #expect(AddressFamily.ipv4.leadingBits == 96 && AddressFamily.ipv6.leadingBits == 0)
        #expect(AddressFamily.allCases.map(\.description) == ["IPv4", "IPv6"])
    }

    @Test("Every kind of address says its family")
    func families() throws {
        let v4 = try #require(IPAddress("192.0.2.1"))
        let v6 = try #require(IPAddress("2001:db8::1"))
        #expect(v4.family == .ipv4 && v6.family == .ipv6)
        #expect(HomeAddress(v4).family == .ipv4 && MobileAddress(v6).family == .ipv6)
        #expect(Endpoint(v4, port: 1).family == .ipv4)
        #expect(v4.packetOctets.count == AddressFamily.ipv4.addressOctets)
    }

    @Test(
        "A prefix is of IPv4 if it lies within the mapped addresses",
        arguments: [("192.0.2.0/24", AddressFamily.ipv4), ("0.0.0.0/0", .ipv4), ("::/0", .ipv6), ("2001:db8::/32", .ipv6)])
    func prefixes(_ text: String, _ family: AddressFamily) throws {
        let prefix = try #require(IPPrefix(text))
        #expect(prefix.family == family)
        #expect(prefix.length == prefix.familyLength + family.leadingBits)
    }

    @Test("A pair keeps the families apart and is walked in order")
    func pair() {
        var pair = FamilyPair { $0 == .ipv4 ? [4] : [6] }
        pair[.ipv6].append(66)
        #expect(pair.ipv4 == [4] && pair[.ipv6] == [6, 66])
        #expect(pair.values == [[4], [6, 66]])
        #expect(pair.map(\.family) == AddressFamily.allCases)
        #expect(pair.mapValues(\.count) == FamilyPair(ipv4: 1, ipv6: 2))
        #expect(FamilyPair(both: 0)[.ipv4] == FamilyPair(both: 0)[.ipv6])
    }
}
