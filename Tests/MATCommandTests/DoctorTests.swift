import MATControl
import MATCore
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

    @Test("Keys of before beside the right one, and SRV and TXT that say another thing than type IMS, are named")
    func staleLines() throws {
        let hoa = HomeAddress(try address("192.0.2.130"))
        var findings = LookupFindings(hoa: hoa, resolvers: [], now: Now(monotonic: .zero, wallMilliseconds: 1_795_240_150_000))
        func key(_ number: UInt8) throws -> PublicKey { try #require(SigningKey(seed: [UInt8](repeating: number, count: 32))).publicKey }
        func servers(_ form: LookupFindings.Form, _ keys: [PublicKey], at place: String = "198.51.100.2") throws -> LookupFindings.Servers {
            let host = IMSHost(
                priority: 1, weight: 1, addresses: [try address(place)], port: 6288, target: try #require(DomainName("ims.example.net.")))
            return .init(form: form, ordered: [host], keys: keys, isAuthenticated: false, lifetime: .seconds(60))
        }
        let (right, old) = (try key(1), try key(2))
        let own = [KeyFile.write(right)]
        findings.dns = .found(try servers(.record, [right]))
        #expect(DoctorFindings.delegation(of: "192.0.2.0/24", findings, keys: own).severity == .ok)
        findings.dns = .found(try servers(.record, [right, old]))
        let stale = DoctorFindings.delegation(of: "192.0.2.0/24", findings, keys: own)
        #expect(stale.severity == .warning && stale.text.contains(KeyFile.write(old)) && !stale.text.contains(own[0]), "\(stale)")
        // Both forms.
        findings.dns = .found(try servers(.record, [right]))
        findings.otherForm = .absent
        #expect(DoctorFindings.forms(findings).isEmpty)
        findings.otherForm = .found(try servers(.service, [right]))
        #expect(DoctorFindings.forms(findings).isEmpty)
        findings.otherForm = .found(try servers(.service, [old]))
        #expect(DoctorFindings.forms(findings).first?.text.contains("name other keys") == true)
        findings.otherForm = .found(try servers(.service, [right], at: "198.51.100.9"))
        #expect(DoctorFindings.forms(findings).first?.text.contains("name other mapping servers") == true)
        // A record may have some of the addresses only.
        var both = try servers(.service, [right])
        both.ordered[0].addresses.append(try address("2001:db8::2"))
        findings.otherForm = .found(both)
        #expect(DoctorFindings.forms(findings).isEmpty)
        findings.otherForm = .unusable("no TXT")
        #expect(DoctorFindings.forms(findings).first?.text.contains("no TXT") == true)
    }

    @Test("Of a prefix longer than /24 each name counts: those without alias, those whose zone has no lines, and a lame zone are told apart")
    func classless() throws {
        let prefix = try #require(IPPrefix("192.0.2.64/29"))
        let zone = try #require(DomainName("64/29.2.0.192.in-addr.arpa"))
        func names(_ outcomes: [ReverseNameFacts.Outcome], aliased: Bool = true) -> [ReverseNameFacts] {
            outcomes.enumerated().map { index, outcome in
                ReverseNameFacts(
                    address: IPAddress(ipv4: 0xC000_0240 + UInt32(index)), alias: aliased ? zone.prefixed("\(64 + index)") : nil, outcome: outcome)
            }
        }
        func findings(_ names: [ReverseNameFacts]) -> [DoctorFinding] { DoctorFindings.names(of: prefix, names) }
        let sound = findings(names([.found, .found]))
        #expect(
            sound.map(\.severity) == [.ok] && sound[0].text.contains("all 2 addresses") && sound[0].text.contains("into 64/29.2.0.192.in-addr.arpa."))
        let missing = findings(names([.absent, .absent], aliased: false))
        #expect(missing.map(\.severity) == [.problem] && missing[0].text.contains("nor an alias (CNAME) at the names of 192.0.2.64, 192.0.2.65"))
        #expect(
            missing[0].remedy?.contains("mat zone --origin ZONE --parent") == true && missing[0].remedy?.contains(" 2.0.192.in-addr.arpa.") == true)
        let empty = findings(names([.absent, .found, .absent, .absent, .absent, .absent]))
        #expect(empty.map(\.severity) == [.warning] && empty[0].text.contains("5 addresses (192.0.2.64, 192.0.2.66, 192.0.2.67, 192.0.2.68, ...)"))
        #expect(empty[0].remedy?.contains("`mat zone --origin 64/29.2.0.192.in-addr.arpa.`") == true)
        let lame = findings(names([.failed("the DNS server failed (SERVFAIL)")]))
        #expect(
            lame.map(\.severity) == [.problem] && lame[0].text.contains("(the DNS server failed (SERVFAIL))")
                && lame[0].remedy?.contains("lame") == true)
        let silent = findings(names([.failed("no DNS server answered in time")], aliased: false))
        #expect(silent.map(\.severity) == [.problem] && silent[0].remedy?.contains("dig +trace 64.2.0.192.in-addr.arpa.") == true)
        // All at once.
        #expect(findings(names([.found, .absent]) + names([.absent], aliased: false) + names([.failed("x")])).count == 3)
    }

    @Test("What servers need of the kernel: this one has it, and each lack says how bad it is and what to do")
    func kernel() {
        // Tried for real: everything that tests of servers need is there.
        for forwards in [false, true] {
            let facts = KernelProbe.look(forwards: forwards)
            #expect(
                facts.sockets == .there && facts.sharedPorts == .there && facts.batches == .there && facts.filters == .there
                    && facts.segments == .there, "\(facts)")
            #expect(facts.isForwarding == nil)
        }
        #expect(DoctorFindings.kernel(KernelFacts(), of: .mappingServer).map(\.severity) == [.ok])
        func lack(_ change: (inout KernelFacts) -> Void, of role: KernelFacts.Role) -> [DoctorFinding] {
            var facts = KernelFacts()
            facts.isForwarding = true
            change(&facts)
            return DoctorFindings.kernel(facts, of: role).filter { $0.severity != .ok }
        }
        let relay = KernelFacts.Role.relay(forwarding: "auto")
        let cases: [(DoctorFinding.Severity, String, [DoctorFinding])] = [
            (.problem, "imsd can't listen", lack({ $0.sockets = .missing("socket: EAFNOSUPPORT") }, of: .mappingServer)),
            (.problem, "does not start", lack({ $0.sharedPorts = .missing("no") }, of: .mappingServer)),
            (.problem, "mat-relay hears nothing", lack({ $0.batches = .missing("recvmmsg: Function not implemented") }, of: relay)),
            (.warning, "in a flood", lack({ $0.filters = .missing("no") }, of: .mappingServer)),
            (.note, "cuts no datagrams", lack({ $0.segments = .missing("no") }, of: relay)),
            (.note, "forwarded by the process", lack({ $0.programs = .missing("EPERM") }, of: relay)),
            (.problem, "does not start", lack({ $0.programs = .missing("EPERM") }, of: .relay(forwarding: "kernel"))),
            (.warning, "can't be tied", lack({ $0.links = .missing("no tcx") }, of: .relay(forwarding: "kernel"))),
            (.note, "at each restart", lack({ $0.pins = .missing("/sys/fs/bpf is in no file system of type bpf") }, of: relay)),
            (.note, "could forward", lack({ $0.isForwarding = false }, of: relay)),
            (.note, "only root", lack({ $0.programs = .unknown }, of: relay)),
        ]
        for (severity, text, found) in cases {
            #expect(
                found.map(\.severity) == [severity] && found.first?.text.contains(text) == true && found.first?.remedy != nil, "\(text): \(found)")
        }
        // Nobody who wants no program in the kernel hears of it.
        #expect(
            lack(
                {
                    $0.programs = .missing("no"); $0.links = .missing("no")
                }, of: .relay(forwarding: "agent")
            ).isEmpty)
    }

    @Test("A program that does not end is given up, and what it says of its end is told")
    func programs() {
        let began = ContinuousClock.now
        let (_, _, failure) = ProgramOutput.run(["sleep", "60"], seconds: 1)
        #expect(failure == "no end within 1 s" && ContinuousClock.now - began < .seconds(30))
        #expect(ProgramOutput.run(["false"], seconds: 5).status == 1 && ProgramOutput.run(["no-such-program"], seconds: 5).failure != nil)
        let finding = DoctorFindings.uncheckable("/usr/sbin/matd", "/etc/matd.yaml", "no end within 10 s")
        #expect(finding.severity == .problem && finding.text == "/etc/matd.yaml was not checked: /usr/sbin/matd: no end within 10 s")
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
        // At a terminal no line is wider than that, and what belongs together stands below one another.
        let long = DoctorReport(findings: [DoctorFinding(.problem, "DNS", "no answer comes from any of them", remedy: "ask another one of them")])
        let narrow = DoctorText.text(long, TextStyle(isColored: false, columns: 32)).split(separator: "\n").map(String.init)
        #expect(narrow.allSatisfy { $0.count <= 32 } && narrow[1].hasPrefix("              ") && narrow.count > 4, "\(narrow)")
        #expect(DoctorText.text(DoctorReport(findings: [DoctorFinding(.ok, "clock", "synchronised")])).hasSuffix("nothing is wrong\n"))
    }

    private static let node = NodeReport(
        uptimeMilliseconds: 1_000, registered: false, homes: [], locators: [], relays: [], unusedAddresses: [], silentRouters: [],
        routingRules: RoutingRulesReport(base: 0, passed: [], before: []), pathsWatched: 0, chosenInterface: nil, peers: [], peersCount: 0,
        resolving: 0,
        undecided: UndecidedReport(count: 0, destinations: []), dns: nil, unknownSources: 0, repairs: 0, lastRepair: nil,
        counters: NodeCountersReport())
}
