import MATSignal
import Testing

@Suite("Addresses and prefixes")
struct AddressTests {
    @Test("Text of both families comes back as it went in", arguments: ["192.0.2.1", "0.0.0.0", "2001:db8::1", "::", "fe80::1:2"])
    func text(_ text: String) {
        #expect(IPAddress(text)?.description == text)
    }

    @Test("What is no address is refused", arguments: ["", "192.0.2", "192.0.2.256", "2001:db8::g", "fe80::1%eth0", "192.0.2.0/24", " 192.0.2.1"])
    func notText(_ text: String) {
        #expect(IPAddress(text) == nil)
    }

    @Test("Prefixes of both families contain what they should")
    func prefixes() throws {
        let v4 = try #require(IPPrefix("192.0.2.0/25"))
        #expect(v4.length == 121)
        #expect(v4.description == "192.0.2.0/25")
        let inside = try #require(IPAddress("192.0.2.127"))
        let outside = try #require(IPAddress("192.0.2.128"))
        #expect(v4.contains(inside))
        #expect(!v4.contains(outside))
        let v6 = try #require(IPPrefix("2001:db8:100::/40"))
        let inside6 = try #require(IPAddress("2001:db8:1ff::1"))
        let outside6 = try #require(IPAddress("2001:db8:200::1"))
        #expect(v6.contains(inside6))
        #expect(!v6.contains(outside6))
        #expect(IPPrefix("192.0.2.1/24") == nil, "a host bit beyond the length")
        #expect(IPPrefix("192.0.2.0/33") == nil)
        #expect(IPPrefix("0.0.0.0/0")?.length == 96)
        #expect(IPPrefix("::/0")?.length == 0)
    }

    @Test("Replacing a prefix keeps the host part")
    func translation() throws {
        let host = try #require(IPAddress("2001:db8:1:23::42"))
        let prefix = try #require(IPAddress("2001:db8:ff:ab00::"))
        let moved = host.replacingPrefix(with: prefix, length: 56)
        #expect(moved.description == "2001:db8:ff:ab23::42")
    }
}
