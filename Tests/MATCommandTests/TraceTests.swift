import MATControl
import MATRuntime
import MATSignal
import Testing

@testable import MATCommand

/// `mat trace`: what was seen on the way of a packet, and at which stage it stops.
@Suite("mat trace") struct TraceTests {
    /// A way without any obstacle, which each test puts one into.
    static func good() throws -> TraceFindings {
        let lookups = try LookupTests()
        let locator = LocatorReport(
            address: "198.51.100.7", interface: "wlan0", state: "sound", deprecated: false, reason: nil, silentMilliseconds: nil,
            nextCheckMilliseconds: nil, trustedInMilliseconds: nil, failures: 0)
        let home = HomeReport(
            address: "192.0.2.99", prefix: nil, locators: ["198.51.100.7"], servers: [], state: "registered", ageMilliseconds: 1,
            expiresInMilliseconds: 1,
            certificateNotAfterMilliseconds: 1, certificateEndsSoon: false, sequence: 1, problem: nil)
        let node = NodeReport(
            uptimeMilliseconds: 1, registered: true, homes: [home], locators: [locator], relays: [], unusedAddresses: [], silentRouters: [],
            routingRules: RoutingRulesReport(base: 0, passed: [], before: []), pathsWatched: 0, chosenInterface: nil, peers: [], peersCount: 0,
            resolving: 0, undecided: UndecidedReport(count: 0, destinations: []), dns: nil, unknownSources: 0, repairs: 0, lastRepair: nil,
            counters: NodeCountersReport())
        let peer = PeerReport(
            home: "192.0.2.10", ownHome: "192.0.2.99", path: .direct, locator: "203.0.113.10", ownLocator: "198.51.100.7", interface: "wlan0",
            locators: ["203.0.113.10"], confirmed: true, proven: true, ageMilliseconds: 9000, refreshedAgoMilliseconds: 1000, switches: 0,
            detourMilliseconds: nil, chosenInterface: nil, packetsOut: 1, packetsIn: 1, octetsOut: 1, octetsIn: 1, problem: nil, standing: .mapped,
            standingReason: nil)
        let traffic = TrafficReport(
            local: nil, remote: "192.0.2.10", way: .mapped, cause: .peer, text: "it is a MAT node, and each end knows where the other is",
            survives: .yes, survivalReason: nil, remedy: nil, peer: peer)
        return TraceFindings(
            lookup: try lookups.findings(lookups.certified([lookups.moa])), node: .success(node),
            traced: NodeTraceReport(
                traffic: traffic,
                entries: [
                    NodeTraceReport.Entry(
                        purpose: "packets leave as 198.51.100.7 -> 203.0.113.10", place: "table ip mat out_1", isThere: true)
                ],
                captured: NodeTraceReport.Route(
                    to: "192.0.2.10", from: nil, interface: "mat0", gateway: nil, table: 6288, isOwn: true, failure: nil),
                leaving: NodeTraceReport.Route(
                    to: "203.0.113.10", from: "198.51.100.7", interface: "wlan0", gateway: "198.51.100.1", table: 6289, isOwn: true, failure: nil),
                why: WhyReport(
                    peer: "192.0.2.10", ownHome: "192.0.2.99",
                    candidates: [
                        WhyReport.Candidate(
                            path: .direct, to: "203.0.113.10", from: "198.51.100.7", used: true, state: "proven 12 s ago", remedy: nil)
                    ], translations: [], problem: nil)), echo: .answered(after: .microseconds(1500)))
    }

    @Test("A packet that arrives: each stage says what is so")
    func arrives() throws {
        let report = try Self.good().report
        #expect(report.steps.map(\.stage) == TraceReport.Stage.allCases && report.steps.allSatisfy { $0.outcome == .ok })
        #expect(
            TraceText.text(report) == """
                node    ok     192.0.2.99 is registered, at 198.51.100.7 (wlan0)
                DNS     ok     names ims1.example. (203.0.113.132), in 3.20 ms
                                 10.2.0.192.in-addr.arpa.
                                 asked 127.0.0.1:53 (/etc/resolv.conf)
                IMS     ok     it is at 203.0.113.10
                                 203.0.113.132:6288: cookie required in 0.42 ms
                                 203.0.113.132:6288: ok in 0.42 ms
                cache   ok     matd has it at 203.0.113.10
                                 entered 9s ago, confirmed 1s ago
                IMT     ok     its entry is in the kernel
                                 packets leave as 198.51.100.7 -> 203.0.113.10 (table ip mat out_1)
                routes  ok     packets leave by wlan0 via 198.51.100.1 for 203.0.113.10
                                 programs' packets: 192.0.2.10: by mat0, table 6288
                                 what leaves for it: 198.51.100.7 -> 203.0.113.10: by wlan0 via 198.51.100.1, table 6289
                path    ok     192.0.2.10 answers, direct to 203.0.113.10, in 1.50 ms
                                 direct to 203.0.113.10 (used): proven 12 s ago
                packets to 192.0.2.10 arrive, and answers come back

                """)
    }

    @Test("A packet that stops: the first stage that it does not pass is named with its cause, and what follows from it is not")
    func stops() throws {
        typealias Change = (inout TraceFindings) throws -> Void
        struct NotTraced: Error {}
        func change(_ change: @escaping (inout NodeTraceReport) -> Void) -> Change {
            { findings in
                guard var traced = findings.traced else { throw NotTraced() }
                change(&traced)
                findings.traced = traced
            }
        }
        let cases: [(TraceReport.Stage, String, Change)] = [
            (.node, "matd isn't running", { $0.node = .failure(CommandFailure("matd isn't running")) }),
            (
                .node, "no usable mobile address",
                { findings in
                    var node = try findings.node.get()
                    node.locators = []
                    findings.node = .success(node)
                }
            ),
            (.dns, "no MAT address", { $0.lookup.dns = .absent }),
            (.dns, "its reverse name exists (a PTR", { ($0.lookup.dns, $0.lookup.isNameTaken) = (.absent, true) }),
            (
                .ims, "is not registered",
                {
                    $0.lookup.mapping = nil; $0.lookup.queries[1].outcome = .answered(.notFound, rtt: .zero, text: nil)
                }
            ),
            (
                .ims, "no server answers",
                {
                    $0.lookup.mapping = nil; $0.lookup.queries = []
                }
            ),
            (
                .cache, "`except` in matd.yaml has 192.0.2.0/24",
                change {
                    ($0.traffic.way, $0.traffic.cause, $0.traffic.text) = (.plain, .exception, "`except` in matd.yaml has 192.0.2.0/24")
                    $0.traffic.remedy = "take it out, and restart matd"
                }
            ),
            (.imt, "the kernel lacks what matd put there: packets leave as", change { $0.entries[0].isThere = false }),
            (.routes, "programs can't send to 192.0.2.10: Network is unreachable", change { $0.captured?.failure = "Network is unreachable" }),
            (
                .routes, "do not come to the translation: table 52",
                change {
                    $0.captured?.isOwn = false; $0.captured?.table = 52
                }
            ),
            (.routes, "nothing can leave from 198.51.100.7 to 203.0.113.10", change { $0.leaving?.failure = "No route to host" }),
            (
                .path,
                "4 packets left for 192.0.2.10, direct to 203.0.113.10, and nothing came back; the last that answers on the way to 203.0.113.10 is 198.51.100.1, 1 hop away",
                {
                    $0.echo = .silent(sent: 4)
                    $0.hops = [TraceReport.Hop(number: 1, address: "198.51.100.1", tookMilliseconds: 0.3)]
                }
            ),
            (
                .path, "no path to it has been found to work",
                { findings in
                    findings.echo = .silent(sent: 4)
                    try change {
                        ($0.traffic.way, $0.traffic.survives, $0.leaving) = (.waits, .perhaps, nil)
                        $0.traffic.survivalReason = "no path to it has been found to work"
                    }(&findings)
                }
            ),
        ]
        for (stage, words, change) in cases {
            var findings = try Self.good()
            try change(&findings)
            let report = findings.report
            #expect(report.stopsAt == stage && report.stop?.text.contains(words) == true, "\(words): \(report)")
            #expect(report.stop?.remedy != nil, "\(words)")
            #expect(TraceText.text(report).split(separator: "\n").last?.hasPrefix("packets to 192.0.2.10 stop at \(stage.title): ") == true)
        }
    }

    @Test("Of this host's own address nothing stops the packets, and no doubt is spoken of where there is none")
    func ownAddress() throws {
        var own = try Self.good()
        own.traced?.traffic.way = .local
        own.traced?.traffic.text = "both ends are on this host"
        own.echo = nil
        let report = own.report
        #expect(report.stopsAt == nil && !report.steps.contains { $0.outcome == .doubt }, "\(report)")
        #expect(TraceText.text(report).hasSuffix("\nnothing stops packets to 192.0.2.10\n"))
    }

    @Test("What works now and may not tomorrow is in doubt: an old place, a peer that can't find this node, and no answer to ping alone")
    func doubts() throws {
        var old = try Self.good()
        old.traced?.traffic.peer?.locators = ["203.0.113.74"]
        #expect(old.report.stopsAt == nil && old.report.steps[3].text.contains("a move that has not reached this node"))
        #expect(TraceText.text(old.report).hasSuffix("nothing stops packets to 192.0.2.10; see what is in doubt above\n"))
        var unregistered = try Self.good()
        var node = try unregistered.node.get()
        node.homes[0].state = "pausing"
        unregistered.node = .success(node)
        #expect(unregistered.report.steps[0].outcome == .doubt && unregistered.report.stopsAt == nil)
        // What this user may not see stops nothing.
        var lookedUp = try Self.good()
        (lookedUp.node, lookedUp.traced, lookedUp.echo) = (.failure(CommandFailure(ControlError("no", cause: .forbidden))), nil, nil)
        #expect(lookedUp.report.stopsAt == nil && lookedUp.report.steps[3].text == "matd could not be asked")
        #expect(TraceText.text(lookedUp.report).hasSuffix("as far as this could be seen nothing stops packets to 192.0.2.10\n"))
        var quiet = try Self.good()
        (quiet.echo, quiet.packetsCame) = (.silent(sent: 4), 7)
        #expect(quiet.report.stopsAt == nil && quiet.report.steps[6].text.contains("packets of it came meanwhile (7)"))
    }
}
