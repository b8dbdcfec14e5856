import MATControl
import MATRuntime
import MATSignal
import Testing

@testable import MATCommand

/// What `mat doctor` makes of facts: each wrong turn of an operator ends in a sentence that names its cause, and what to do.
@Suite("Doctor") struct DoctorTests {
    private func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }

    private func worst(_ findings: [DoctorFinding]) -> [DoctorFinding] { findings.filter { $0.severity == .problem || $0.severity == .warning } }

    @Test("Two DHCP clients and one default route: the idle link is named, with what to do")
    func idleLink() throws {
        var host = HostFacts()
        host.clock = .synchronized
        host.interfaces = [
            .init(name: "wlan0", addresses: [try address("203.0.113.10")], hasDefaultRoute: [.ipv4], reversePathFilter: 0),
            .init(name: "wwan0", addresses: [try address("10.2.0.50")], hasDefaultRoute: [], reversePathFilter: 1),
        ]
        let findings = DoctorFindings.of(host, forNode: true)
        let idle = try #require(worst(findings).first)
        #expect(worst(findings).count == 1 && idle.text.contains("wwan0 (10.2.0.50) has no IPv4 default route"))
        #expect(idle.remedy?.contains("metric") == true)
        #expect(findings.contains { $0.severity == .note && $0.text.contains("reverse path filter") })
        host.interfaces[1].hasDefaultRoute = [.ipv4]
        host.interfaces[1].reversePathFilter = 2
        #expect(DoctorFindings.of(host, forNode: true).allSatisfy { $0.severity == .ok })
    }

    @Test("A free clock, no TUN device, no network: each is named; a server needs only the clock")
    func host() {
        var host = HostFacts()
        host.clock = .free
        host.tunnelDevice = .missing
        let findings = DoctorFindings.of(host, forNode: true)
        #expect(findings.contains { $0.severity == .warning && $0.subject == "clock" })
        #expect(findings.contains { $0.severity == .problem && $0.text.contains("/dev/net/tun") })
        #expect(findings.contains { $0.severity == .problem && $0.subject == "network" })
        #expect(DoctorFindings.of(host, forNode: false).map(\.subject) == ["clock"])
        host.tunnelDevice = .refused("Permission denied")
        host.isRoot = false
        #expect(DoctorFindings.of(host, forNode: true).contains { $0.severity == .note && $0.remedy?.contains("as root") == true })
    }

    @Test("A registration's problem comes with its remedy; a stopped daemon and a broken configuration are problems")
    func daemon() throws {
        let home = HomeReport(
            address: "192.0.2.10", prefix: nil, locators: [], servers: [], state: "pausing", ageMilliseconds: nil, expiresInMilliseconds: nil,
            certificateNotAfterMilliseconds: 1_795_240_150_000, certificateEndsSoon: true, sequence: 1,
            problem: Problem(.clockWrong, of: "192.0.2.10", "the clock is wrong by 3 h"))
        var node = Self.node
        node.homes = [home]
        let findings = DoctorFindings.of(node)
        #expect(
            findings.contains {
                $0.severity == .problem && $0.text == "192.0.2.10: the clock is wrong by 3 h" && $0.remedy?.contains("timedatectl") == true
            })
        #expect(findings.contains { $0.subject == "certificate" && $0.text.contains("2026-11-21") })
        #expect(findings.contains { $0.severity == .problem && $0.text.contains("no usable mobile address") })
        #expect(DoctorFindings.unreachable("matd", CommandFailure("matd does not answer")).severity == .problem)
        #expect(DoctorFindings.check(of: "matd", status: 78, output: "matd.yaml:3: unknown key\n").text == "matd.yaml:3: unknown key")
        #expect(DoctorFindings.check(of: "matd", status: nil, output: "").remedy == "install matd")
    }

    @Test("A PTR that hides the wildcard is told from a zone without lines; clocks of servers are compared")
    func zone() throws {
        let hoa = HomeAddress(try address("192.0.2.130"))
        var findings = LookupFindings(hoa: hoa, resolvers: [], now: Now(monotonic: .zero, wallMilliseconds: 1_795_240_150_000))
        findings.dns = .absent
        #expect(DoctorFindings.of(findings, home: nil).first?.remedy?.contains("`mat zone` writes") == true)
        findings.isNameTaken = true
        let shadow = try #require(DoctorFindings.of(findings, home: nil).first)
        #expect(shadow.text.contains("PTR") && shadow.remedy?.contains("mat zone --hoa 192.0.2.130") == true)
        #expect(DoctorFindings.delegation(of: "192.0.2.0/24", findings, keys: []).severity == .problem)
        let server = Endpoint(try address("198.51.100.2"), port: 6288)
        findings.dns = .found(.init(form: .record, ordered: [], keys: [], isAuthenticated: false, lifetime: .seconds(60)))
        findings.clocks = [(server, 3600), (Endpoint(try address("198.51.100.3"), port: 6288), 2)]
        let clock = DoctorFindings.of(findings, home: nil).filter { $0.subject == "clock" }
        #expect(clock.count == 1 && clock[0].severity == .problem && clock[0].text.contains("1h ahead of"))
        #expect(DoctorFindings.delegation(of: "192.0.2.0/24", findings, keys: ["x"]).text.contains("other keys"))
    }

    @Test("What is wrong is printed first, remedies below, and the counts last; nothing wrong is said as well")
    func text() {
        let report = DoctorReport(findings: [
            DoctorFinding(.ok, "clock", "synchronised"), DoctorFinding(.note, "NAT", "translated"),
            DoctorFinding(.problem, "DNS", "no answer", remedy: "ask another"),
        ])
        let lines = DoctorText.text(report).split(separator: "\n").map(String.init)
        #expect(lines[0] == "problem  DNS    no answer" && lines[1] == "                -> ask another")
        #expect(lines[2].hasPrefix("note") && lines[3].hasPrefix("ok") && lines.last == "1 problem, 1 note")
        #expect(report.hasProblem)
        #expect(DoctorText.text(DoctorReport(findings: [DoctorFinding(.ok, "clock", "synchronised")])).hasSuffix("nothing is wrong\n"))
    }

    private static let node = NodeReport(
        uptimeMilliseconds: 1_000, registered: false, homes: [], locators: [], relays: [], unusedAddresses: [], silentRouters: [],
        routingRules: RoutingRulesReport(base: 0, passed: [], before: []), pathsWatched: 0, chosenInterface: nil, peers: [], peersCount: 0,
        resolving: 0,
        undecided: UndecidedReport(count: 0, destinations: []), dns: nil, unknownSources: 0, repairs: 0, lastRepair: nil,
        counters: NodeCountersReport())
}
