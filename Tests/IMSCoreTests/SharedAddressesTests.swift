import MATSignal
import MATTesting
import Testing

@testable import IMSCore

@Suite("Addresses that several nodes share")
struct SharedAddressesTests {
    private func record(_ hoa: String, _ endpoints: [String]) -> MappingRecord {
        let places = endpoints.enumerated().map { MappingRecord.Place.endpoint(Endpoint(ip($1), port: 40_000 + UInt16($0)), preference: 1) }
        return MappingRecord(hoa: home(hoa), sequence: 1, lifetime: 600, issued: 1, places: places)
    }

    @Test("An address counts each home address once, and not those that have gone; IPv6 addresses are not shared")
    func counts() {
        var shared = SharedAddresses()
        let first = record("192.0.2.1", ["198.51.100.200", "198.51.100.200", "2001:db8:aa::1"])
        shared.held(first, insteadOf: nil)
        #expect(!shared.hasSeveral(ip("198.51.100.200")))
        let second = record("192.0.2.2", ["198.51.100.200", "2001:db8:aa::1"])
        shared.held(second, insteadOf: nil)
        #expect(shared.hasSeveral(ip("198.51.100.200")) && !shared.hasSeveral(ip("2001:db8:aa::1")))
        // The same again.
        shared.held(second, insteadOf: second)
        #expect(shared.hasSeveral(ip("198.51.100.200")))
        shared.held(record("192.0.2.2", ["198.51.100.201"]), insteadOf: second)
        #expect(!shared.hasSeveral(ip("198.51.100.200")) && !shared.hasSeveral(ip("198.51.100.201")))
        shared.held(record("192.0.2.2", []), insteadOf: record("192.0.2.2", ["198.51.100.201"]))
        shared.held(record("192.0.2.3", ["198.51.100.201"]), insteadOf: nil)
        #expect(!shared.hasSeveral(ip("198.51.100.201")))
    }
}
