import MATSignal
import Testing

@testable import IMTPlan

@Suite("What is never captured") struct ExemptionTests {
    private func exemption(_ text: String, _ adjust: (inout IMTConfiguration) throws -> Void = { _ in }) throws -> Exemption? {
        var configuration = IMTConfiguration(homeAddresses: [try #require(HomeAddress("192.0.2.10"))])
        try adjust(&configuration)
        return configuration.exemption(of: try #require(IPAddress(text)))
    }

    @Test("All destinations of a home address's family are captured, but what is of the link, and those of the other family are not")
    func everything() throws {
        #expect(try exemption("198.51.100.20") == nil)
        #expect(try exemption("169.254.1.1") == .link && exemption("224.0.0.251") == .link && exemption("ff02::1") == .link)
        #expect(try exemption("2001:db8::1") == .noHome)
    }

    @Test("Of what `traffic` selects, `except` and name servers leave out, the longest prefix counts")
    func longest() throws {
        let (wide, narrow) = (try #require(IPPrefix("198.51.0.0/16")), try #require(IPPrefix("198.51.100.0/24")))
        #expect(try exemption("198.51.100.20") { $0.traffic = .nothing } == .notSelected)
        #expect(try exemption("198.51.100.20") { $0.traffic = .prefixes([narrow]) } == nil)
        #expect(try exemption("198.51.101.20") { $0.traffic = .prefixes([narrow]) } == .notSelected)
        #expect(try exemption("198.51.100.20") { $0.exceptions = [wide, narrow] } == .exception(narrow))
        #expect(
            try exemption("198.51.100.20") {
                $0.traffic = .prefixes([narrow])
                $0.exceptions = [wide]
            } == nil)
        #expect(try exemption("198.51.100.53") { $0.alwaysPlain = [try #require(IPPrefix("198.51.100.53/32"))] } == .nameServer)
    }
}
