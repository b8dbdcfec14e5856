import MATCore
import MATSignal
import MATTesting
import RelayCore
import Testing

@testable import MATRelay

@Suite("The relay's state file") struct StateFileTests {
    private let binding = SavedBinding(
        prefix: prefix("10.0.0.1/32"), issuer: 0xABCD, endpoint: Endpoint(ip("198.51.100.1"), port: 6289),
        local: Endpoint(ip("2001:db8::1"), port: 6290), until: 1_800_000_000_123, signedAt: 1_800_000_000_000, certificateNotAfter: .max,
        lifetimeSeconds: 120, cookieTime: 1_800_000_000, clientCookie: .max)

    @Test("What is written is read again")
    func roundTrip() throws {
        var resident = binding
        resident.prefix = prefix("2001:db8:5::/64")
        resident.issuer = nil
        resident.endpoint = Endpoint(ip("2001:db8::7"), port: 1)
        let contents = RelayStateFile.Contents(
            secrets: [Array(0..<16), Array(240...255)],
            saved: SavedRelay(
                month: "2026-11", octetsOfMonth: [SavedRelay.Usage(prefix: prefix("10.0.0.1"), octets: 77)], bindings: [binding, resident]))
        let read = try #require(RelayStateFile.parse(RelayStateFile.write(contents)))
        #expect(read.contents == contents && read.unreadable == 0)
    }

    @Test("A damaged line costs that line, another file everything, and nothing the process")
    func damaged() throws {
        let text = RelayStateFile.write(RelayStateFile.Contents(saved: SavedRelay(month: "", octetsOfMonth: [], bindings: [binding])))
        let read = try #require(RelayStateFile.parse(text + "binding 10.0.0.1/32 nonsense\nsecret 12\nfurther\n"))
        #expect(read.contents.saved.bindings == [binding] && read.unreadable == 3)
        #expect(RelayStateFile.parse("") == nil && RelayStateFile.parse("residents: []\n") == nil)
        for count in 0..<text.utf8.count { _ = RelayStateFile.parse(String(text.prefix(count))) }
    }
}
