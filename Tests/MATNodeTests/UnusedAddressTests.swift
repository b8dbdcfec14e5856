import IMTPlan
import MATTesting
import NodeCore
import Testing

@testable import MATNode

/// Addresses that are no MoAs, with the reason.
@Suite("Unused addresses") struct UnusedAddressTests {
    private func address(_ text: String, _ interface: String = "wlan0", adjust: (inout LocalAddress) -> Void = { _ in }) -> LocalAddress {
        var address = LocalAddress(address: ip(text), interface: interface, interfaceIndex: 2, prefixLength: 24, hasDefaultRoute: true)
        adjust(&address)
        return address
    }

    @Test("Every address that is not used has its reason")
    func reasons() {
        var configuration = NodeConfiguration()
        configuration.ignoredInterfaces = ["docker*"]
        let (usable, unused) = configuration.addressRules.sort([
            address("192.0.2.1"), address("192.0.2.2") { $0.hasDefaultRoute = false }, address("192.0.2.3") { $0.dadFailed = true },
            address("192.0.2.4") { $0.isTentative = true },
            address("192.0.2.5") { $0.linkUp = false }, address("172.17.0.1", "docker0"), address("fe80::1"),
            address("192.0.2.6") { $0.isGlobalScope = false },
            address("192.0.2.7") { $0.isDeprecated = true },
        ])
        #expect(usable.map(\.address) == [ip("192.0.2.1"), ip("192.0.2.7")])
        #expect(
            unused.map { $0.reason.split(separator: " ").prefix(3).joined(separator: " ") } == [
                "wlan0 has no", "another host on", "whether another host", "wlan0 is down", "interfaces: ignore in", "it is valid",
            ])
        configuration.needsDefaultRoute = false
        #expect(configuration.addressRules.sort([address("192.0.2.2") { $0.hasDefaultRoute = false }]).unused.isEmpty)
    }

    @Test("A link with hundreds of addresses is bounded, and says so")
    func bounded() {
        let many = (1...250).map { address("192.0.2.\($0)") }
        let (usable, unused) = NodeConfiguration().addressRules.sort(many + [address("203.0.113.1", "wwan0") { $0.interfaceIndex = 3 }])
        #expect(usable.count == AddressRules.addressesPerLinkMax + 1 && unused.count == 250 - AddressRules.addressesPerLinkMax)
    }
}
