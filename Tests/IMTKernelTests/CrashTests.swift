import Foundation
import MATSignal
import Namespaces
import Testing

@testable import IMTPlan

/// A process (Tests/IMTChurn) is killed at any moment of its transactions; see Topology for the drawing.
@Suite("Crashes", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct CrashTests {
    @Test("Killed in the middle of a transaction of 10,000 bindings, all or none of it is there, and the next start converges")
    func killed() throws {
        let net = try Topology()
        let program = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath().deletingLastPathComponent()
            .appendingPathComponent("imt-churn").path
        try #require(FileManager.default.isExecutableFile(atPath: program), "\(program) is not built")
        var random = SystemRandomNumberGenerator()
        for _ in 0..<4 {
            let churn = try Child(shell: "ip netns exec \(net.mn.namespace.name) \(program)")
            // Long enough for the first transaction to be on its way, mostly; each takes some 50 to 500 ms.
            #expect(eventually(within: 20) { net.mn.namespace.attempt("ip rule | grep -q 6280").status == 0 })
            usleep(UInt32.random(in: 0...900_000, using: &random))
            churn.end()
        }
        let adopted = try net.mn.start(IMTConfiguration(homeAddresses: ["192.0.2.1"].compactMap { HomeAddress($0) }))
        #expect(adopted.adopted)
        #expect([0, 10_000].contains(adopted.outbound.count), "\(adopted.outbound.count)")
        #expect(Set(adopted.outbound.values).count <= 1, "a transaction was applied in part")

        // What the agent wants is what is there afterwards: maps, routes, and nothing else.
        try net.mn.useLocators(on: "wlan", "cell")
        let own = HomeAddress(try address("192.0.2.1"))
        let home = HomePair(own: own, peer: HomeAddress(try address("198.51.100.1")))
        let mobile = MobilePair(own: MobileAddress(try address("10.1.0.2")), peer: MobileAddress(try address("10.9.0.2")))
        let (outbound, inbound) = ([home: mobile], [Arrival(peer: mobile.peer, own: own): home.peer])
        try net.mn.ask { try $0.reconcile(outbound: outbound, inbound: inbound) }
        #expect(try net.mn.ask { try $0.reconcile(outbound: outbound, inbound: inbound) } == 0)
        #expect(!(try net.mn.namespace.run("nft list maps").contains("198.18.")))
        #expect(net.mn.namespace.attempt("sh -c 'ip route show table 6288 | grep -c 198.18'").output.hasPrefix("0"))
        try net.cn.start(Topology.cnConfiguration)
        try net.cn.useLocators(on: "eth0")
        try net.cn.map("198.51.100.1", "192.0.2.1", over: "10.9.0.2", "10.1.0.2")
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1").status == 0)
        #expect(net.mn.failures.isEmpty, "\(net.mn.failures)")
    }
}
