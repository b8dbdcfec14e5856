import Foundation
import MATControl
import MATCore
import MATSignal
import Testing

@testable import MATCommand

/// Every view as a person has it before them: on a terminal with 80 columns and one with 200, of a node with a peer in each state and of one
/// with 2000 peers, of which matd tells 1000. The files in docs/captures hold what was looked at; of long ones their begin and end.
///
/// A change of a view is meant to show here. MAT_GOLDEN=write writes the captures anew, for a reviewer to look at.
@Suite("Captures of all views") struct CapturesTests {
    static let widths = [80, 200]
    static let sizes = ["few", "many"]

    struct View: Sendable, CustomTestStringConvertible {
        var name: String
        var text: @Sendable (TextStyle) -> String
        /// Words that have to be there whole.
        var words: [String] = []
        var testDescription: String { name }
    }

    @Test("No view is wider than the terminal, each address is there whole, and views are as they were", arguments: widths)
    func captures(_ columns: Int) throws {
        for view in Self.views {
            let text = view.text(TextStyle(isColored: false, columns: columns))
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
            let long = lines.first { $0.count > columns }
            #expect(long == nil, "\(view.name), \(columns) columns: \(long ?? "")")
            let found = Set(text.split { " \n,".contains($0) }.map { $0.hasSuffix(":") ? $0.dropLast() : $0 })
            let cut = view.words.first { !found.contains($0[...]) }
            #expect(cut == nil, "\(view.name), \(columns) columns: \(cut ?? "") is not there whole")
            try compare(lines, with: "\(view.name).\(columns)")
        }
    }

    @Test("With colours no view is wider, and none says anything else", arguments: widths)
    func colours(_ columns: Int) {
        for view in Self.views {
            let plain = view.text(TextStyle(isColored: false, columns: columns))
            let colored = view.text(TextStyle(isColored: true, columns: columns))
            #expect(colored.replacing(/\u{1B}\[[0-9]+m/, with: "") == plain, "\(view.name), \(columns) columns")
        }
    }

    @Test("Whom a person should look at comes first, and --limit leaves out the others and says how many")
    func limit() {
        let report = PeersReport(peers: Self.peers("many"), peersCount: 2000, peersTroubled: 500, undecided: nil)
        let lines = PeersText.text(report, limit: 3).split(separator: "\n").map(String.init)
        #expect(lines[1...3].allSatisfy { $0.contains(" unreachable ") } && lines[4] == "and 997 more", "\(lines)")
        #expect(
            lines.last?.hasPrefix("2000 peers, of which matd leaves out 1000, 125 of which should be looked at too; of the others 125 unreachable, ")
                == true, "\(lines)")
        let first = PeersText.ordered(report.peers).firstIndex { $0.standing == .mapped } ?? 0
        #expect(first == report.peers.count { $0.standing != .mapped } && first > 100)
        // Each once.
        #expect(Set(PeersText.ordered(report.peers)) == Set(report.peers))
    }

    // MARK: Files

    private func compare(_ lines: [Substring], with name: String) throws {
        let (first, last) = (50, 15)
        let cut =
            lines.count <= first + last + 1
            ? lines : lines.prefix(first) + ["~ \(lines.count - first - last) lines ~"] + lines.suffix(last)
        let text = cut.joined(separator: "\n")
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let file = root.appendingPathComponent("docs/captures/\(name).txt")
        if ProcessInfo.processInfo.environment["MAT_GOLDEN"] == "write" { return try text.write(to: file, atomically: true, encoding: .utf8) }
        let wanted = try String(contentsOf: file, encoding: .utf8)
        #expect(text == wanted, "\(name) is not as it was; MAT_GOLDEN=write writes it anew, to be looked at")
    }

    // MARK: Reports

    private static let now = Now(monotonic: .zero, wallMilliseconds: 1_795_240_150_000)
    /// As long as addresses get.
    private static func long(_ number: Int, _ site: Int = 0x20) -> String {
        "2001:db8:\(String(site, radix: 16)):ffff:1234:5678:9abc:\(String(0x1000 + number, radix: 16))"
    }
    private static func short(_ number: Int) -> String { "198.51.\(100 + number / 250).\(1 + number % 250)" }

    /// One in each state.
    private static func peer(_ number: Int) -> PeerReport {
        let isIPv4 = number % 2 == 0
        var peer = PeerReport(
            home: isIPv4 ? short(number) : long(number), ownHome: isIPv4 ? "192.0.2.10" : long(1, 0x10), path: .direct,
            locator: isIPv4 ? "203.0.113.\(1 + number % 250)" : long(number, 0xb), ownLocator: isIPv4 ? "192.0.2.77" : long(7, 0xa),
            interface: "enp0s31f6", locators: [], confirmed: true, proven: true, ageMilliseconds: Int64(75_000 + 61_000 * number),
            refreshedAgoMilliseconds: 5_000, switches: number % 7, detourMilliseconds: nil, chosenInterface: nil,
            packetsOut: UInt64(1_234_567 + number), packetsIn: UInt64(7_654_321 + number), octetsOut: UInt64(1_000_000 + number),
            octetsIn: UInt64(2_000_000 + number), problem: nil, standing: .mapped, standingReason: nil)
        // So that each state meets both families.
        switch (number + number / 8) % 8 {
        case 1: (peer.path, peer.locator) = (.encapsulated, isIPv4 ? "203.0.113.9:41000" : "[\(long(number, 0xb))]:41000")
        case 2: (peer.path, peer.locator) = (.relayed, isIPv4 ? "203.0.113.53:6290" : "[\(long(0x53, 0xfe))]:6290")
        case 3:
            (peer.standing, peer.standingReason) = (.oneSided, "\(peer.ownHome) is not registered yet; it may not hear of this host's moves")
        case 4:
            (peer.standing, peer.path, peer.locator, peer.ownLocator) = (.unreachable, nil, nil, nil)
            let path = "no path to it has been found to work; `mat why \(peer.home)` says what was tried"
            // One whose operator took the address back.
            peer.standingReason = number % 3 == 0 ? "its mapping server has revoked its certificate: its conversations end" : path
        case 5: (peer.detourMilliseconds, peer.chosenInterface) = (605_000, "enp0s31f6")
        case 6: peer.locator = peer.home
        case 7: (peer.path, peer.locator, peer.ownLocator, peer.interface) = (nil, nil, nil, nil)
        default: break
        }
        return peer
    }

    static func peers(_ size: String) -> [PeerReport] { (0..<(size == "few" ? 8 : 1000)).map(peer) }

    private static func undecided() -> UndecidedReport {
        UndecidedReport(
            count: 2,
            destinations: [long(9, 0x30), "203.0.113.200"].enumerated().map { place, address in
                UndecidedReport.Destination(
                    address: address, isPlain: place == 0, reason: "the DNS server failed (SERVFAIL), as did its other addresses",
                    ageMilliseconds: 75_000, askedAgoMilliseconds: 5_000)
            })
    }

    private static func node(_ size: String) -> NodeReport {
        let homes = ["192.0.2.10", long(1, 0x10)].map { home in
            HomeReport(
                address: home, prefix: nil, locators: ["192.0.2.77", long(7, 0xa), long(8, 0xa)],
                servers: ["203.0.113.132:6288", "[\(long(0x132, 0x53))]:6288"], state: "registered", ageMilliseconds: 12_000,
                expiresInMilliseconds: 588_000, certificateNotAfterMilliseconds: 1_795_240_150_000, certificateEndsSoon: false, sequence: 7,
                problem: nil)
        }
        func locator(_ address: String, _ interface: String, _ state: String = "sound") -> LocatorReport {
            LocatorReport(
                address: address, interface: interface, state: state, deprecated: false, reason: nil, silentMilliseconds: 12_000,
                nextCheckMilliseconds: 3_000, trustedInMilliseconds: 40_000, failures: 2)
        }
        var counters = NodeCountersReport()
        counters.handovers = 3
        let relay = "[\(long(0x53, 0xfe))]:6290"
        return NodeReport(
            uptimeMilliseconds: 192_000, registered: true, homes: homes,
            locators: [locator("192.0.2.77", "enp0s31f6"), locator(long(7, 0xa), "enp0s31f6"), locator(long(8, 0xa), "wwx028037ec0200", "dead")],
            relays: [
                RelayReport(
                    home: long(1, 0x10), addresses: [relay], state: .bound, address: relay, locator: long(7, 0xa), observed: "[\(long(7, 0xa))]:6289",
                    reason: nil, gateway: "routed")
            ], relayOnly: false,
            unusedAddresses: [UnusedAddressReport(address: long(3, 0xc), interface: "eth0", reason: "eth0 has no IPv6 default route")],
            silentRouters: [SilentRouterReport(address: "fe80::1234:5678:9abc:def0", interface: "wlan0", instead: nil)],
            routingRules: RoutingRulesReport(base: 6270, passed: ["6269: not fwmark 51820 lookup 51820"], before: ["5270: from all lookup 52"]),
            pathsWatched: 4, chosenInterface: nil, peers: peers(size), peersCount: size == "few" ? 8 : 2000,
            peersTroubled: size == "few" ? nil : 375, resolving: 2, undecided: undecided(),
            dns: DNSReport(
                from: "/etc/resolv.conf",
                servers: [
                    DNSReport.Server(
                        address: "\(long(0x131, 0x53))", port: 53, isUpstream: true, answeredAgoMilliseconds: 3_000, failingMilliseconds: nil,
                        failure: nil),
                    DNSReport.Server(
                        address: "203.0.113.131", port: 53, isUpstream: false, answeredAgoMilliseconds: nil, failingMilliseconds: 90_000,
                        failure: "no answer"),
                ]), unknownSources: 5, repairs: 6, lastRepair: "the table was gone", counters: counters)
    }

    private static func history(_ size: String) -> HistoryReport {
        HistoryReport(
            handovers: (0..<(size == "few" ? 3 : 256)).map { number in
                let isIPv4 = number % 2 == 0
                func place(_ number: Int, _ interface: String) -> HistoryReport.Place {
                    HistoryReport.Place(address: isIPv4 ? short(number) : long(number, 0xa), interface: interface)
                }
                return HistoryReport.Handover(
                    home: isIPv4 ? "192.0.2.10" : long(1, 0x10), atMilliseconds: 1_795_000_000_000 + UInt64(number) * 600_000,
                    reason: number % 3 == 0 ? .pathDead : .preferred, from: place(number, "enp0s31f6"), to: place(number + 1, "wwx028037ec0200"),
                    overlap: number % 3 != 0, withoutAddressMilliseconds: number % 5 == 2 ? 64_000 : nil, registeredAfterMilliseconds: 31,
                    peers: size == "few" ? 2 : 2000, peersTold: size == "few" ? 2 : 1990, toldAfterMilliseconds: 95_000,
                    packetsHeld: number % 5 == 2 ? 70 : 0, packetsLost: number % 5 == 2 ? 3 : 0)
            })
    }

    private static func explain(_ size: String) -> ExplainReport {
        let conversations = peers(size).prefix(500).compactMap { peer -> ExplainReport.Conversation? in
            guard let near = IPAddress(peer.ownHome), let far = IPAddress(peer.home) else { return nil }
            let socket = HostSocket(
                transport: .tcp, state: "ESTAB", local: Endpoint(near, port: 50_000), remote: Endpoint(far, port: 443), inode: 1)
            let isMapped = peer.standing == .mapped
            return ExplainReport.Conversation(
                socket: ExplainReport.Socket(socket),
                traffic: TrafficReport(
                    local: peer.ownHome, remote: peer.home, way: .mapped, cause: .peer, text: "it is a MAT node",
                    survives: isMapped ? .yes : .perhaps,
                    survivalReason: peer.standingReason, remedy: nil, peer: peer))
        }
        let waiting = [IPAddress.unspecifiedIPv6, IPAddress.unspecifiedIPv4].map { address in
            HostSocket(transport: .udp, state: "UNCONN", local: Endpoint(address, port: 5353), remote: nil, inode: 2)
        }
        return ExplainReport(
            process: ExplainReport.Process(id: 4711, name: "firefox"), homes: ["192.0.2.10", long(1, 0x10)], conversations: conversations,
            waiting: waiting.map { ExplainReport.Waiting($0, homes: []) }, note: nil)
    }

    private static let why = WhyReport(
        peer: long(1), ownHome: long(1, 0x10),
        candidates: [
            WhyReport.Candidate(
                path: .direct, to: long(1, 0xb), from: long(7, 0xa), used: false,
                state: "our \(long(7, 0xa)) is behind a firewall: rewritten packets do not pass in the middle of a connection",
                remedy: "use a network that lets packets of connections in, or have UDP port 6289 opened at the firewall before this host"),
            WhyReport.Candidate(
                path: .encapsulated, to: "[\(long(1, 0xb))]:41000", from: long(7, 0xa), used: true, state: "proven 12 s ago", remedy: nil),
            WhyReport.Candidate(
                path: .relayed, to: "[\(long(0x53, 0xfe))]:6290", from: long(7, 0xa), used: false, state: "not needed", remedy: nil),
        ], translations: ["\(long(7, 0xa)) is behind a firewall, which lets in what belongs to a flow from inside"],
        peerTranslation: "its record lists relays alone", problem: nil,
        plain: [
            WhyReport.PlainConversation(
                transport: "tcp", local: "[\(long(7, 0xa))]:40000", remote: "[\(long(1, 0xb))]:22",
                reason: "\(long(1, 0xb)) is a mobile address of \(long(1)): a conversation with it itself survives no move")
        ])

    private static let trace = TraceReport(
        hoa: long(1),
        steps: [
            TraceReport.Step(.node, .ok, "\(long(1, 0x10)) is registered, at \(long(7, 0xa)) (enp0s31f6)"),
            TraceReport.Step(
                .dns, .ok, "names ims1.example. (\(long(0x132, 0x53))), in 3.20 ms",
                details: [
                    "1.0.0.1.c.b.a.9.8.7.6.5.4.3.2.1.f.f.f.f.0.2.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
                    "asked [\(long(0x131, 0x53))]:53 (`dns` in /etc/matd/matd.yaml)",
                ]),
            TraceReport.Step(
                .ims, .doubt, "it is at \(long(1, 0xb)); one of its servers gives no answer", remedy: "have its operator look at \(long(0x133, 0x53))"
            ),
            TraceReport.Step(
                .path, .stops, "nothing comes back from \(long(1, 0xb))", remedy: "ask the operator of the last router whether packets to it pass"),
        ], stopsAt: .path,
        hops: [
            TraceReport.Hop(number: 1, address: long(0x1, 0xa), tookMilliseconds: 0.4),
            TraceReport.Hop(number: 2, address: nil, tookMilliseconds: nil),
        ])

    private static let doctor = DoctorReport(findings: [
        DoctorFinding(.ok, "clock", "synchronised"),
        DoctorFinding(
            .problem, "peers",
            "conversations with \(long(1)), \(long(3)), \(short(4)) and 247 more would not survive a move: the networks of both ends let nothing in",
            remedy: "`mat why \(long(1))` says what was tried, and what would make a path work"),
        DoctorFinding(.warning, "DNS", "203.0.113.131 has not answered for 1m 30s", remedy: "`dig @203.0.113.131 .` shows whether it answers"),
    ])

    // MARK: A server's

    private static func list(_ size: String) -> MappingListReport {
        let mappings = peers(size).enumerated().map { place, peer in
            var mapping = MappingReport(hoa: peer.home)
            mapping.locators = (peer.locator.map { [$0] } ?? []).filter { !$0.contains("]") && !$0.contains(".53:") }
                .map { MappingReport.Locator(moa: $0, preference: 10) }
            if place % 8 == 1 { mapping.locators.append(MappingReport.Locator(moa: long(place, 0xc), preference: 9)) }
            if place % 8 == 2 { mapping.relays = [MappingReport.Endpoint(endpoint: "[\(long(0x53, 0xfe))]:6290", preference: 1)] }
            (mapping.isRegisteredHere, mapping.isRevoked, mapping.isExpired) = (place % 8 != 5, place % 8 == 4, place % 8 == 6)
            (mapping.isWithdrawn, mapping.isUnseen) = (place % 8 == 7, place % 8 == 3 ? true : nil)
            (mapping.expiresMilliseconds, mapping.updatedAtMilliseconds) = (now.wallMilliseconds + 588_000, now.wallMilliseconds - 12_000)
            return mapping
        }
        return MappingListReport(
            total: size == "few" ? 8 : 2000, unseen: 1, mappings: mappings, next: size == "few" ? nil : "\(peers(size).last?.home ?? "")/128")
    }

    private static func enrolled(_ size: String) -> EnrolledReport {
        EnrolledReport(
            homes: peers(size).enumerated().map { place, peer in
                EnrolledReport.Home(
                    home: peer.home, publicKey: "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", certificate: "e4bd66120dc0c864",
                    by: place % 3 == 0 ? "hand" : place % 3 == 1 ? "token 5f2a9c01d4e8b7a3" : "visit from \(long(place, 0x44))",
                    givenAtMilliseconds: now.wallMilliseconds - 86_400_000,
                    validUntilMilliseconds: place % 8 == 4 ? nil : now.wallMilliseconds + 31_535_999_000,
                    renewal: place % 2 == 0, lastSeenMilliseconds: place % 5 == 0 ? nil : now.wallMilliseconds - 12_000)
            }, next: size == "few" ? nil : "\(peers(size).last?.home ?? "")/128")
    }

    private static func server() -> IMSStatusReport {
        var status = IMSStatusReport()
        (status.version, status.uptimeMilliseconds, status.port, status.canEnrol) = ("0.2.0", 192_000, 6288, true)
        status.prefixes = [
            IMSStatusReport.Prefix(prefix: "192.0.2.0/24", mobilePrefixes: [], mappings: 1990, mappingsMax: nil, updatesPerSecondMax: 100),
            IMSStatusReport.Prefix(
                prefix: "2001:db8:20:ffff::/64", mobilePrefixes: ["2001:db8:a:ffff:1234:5678::/96", "2001:db8:b:ffff:1234:5678::/96"], mappings: 2000,
                mappingsMax: 2000, updatesPerSecondMax: 100),
        ]
        status.keys = [
            IMSStatusReport.Key(
                id: "e4bd66120dc0c864", publicKey: "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", use: "signing", certificates: 2000)
        ]
        status.certificates = IMSStatusReport.Certificates(endingSoon: 12, ended: 3, revoked: 250)
        status.store = IMSStatusReport.Store(
            path: "/var/lib/imsd/ims.db", lastFailure: nil, isLoading: false, unavailable: "database or disk is full")
        (status.mappings, status.mappingsExpired, status.mappingsWithdrawn, status.subscriptions) = (2000, 250, 250, 4000)
        status.counters.received = ["IMS Update": 123_456, "IMS Query": 98_765]
        return status
    }

    /// Of an address whose names and places are as long as such get, with one server that is silent.
    private static func lookup() throws -> LookupFindings {
        func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }
        let (hoa, moa) = (HomeAddress(try address(long(1))), MobileAddress(try address(long(1, 0xb))))
        let issuer = try #require(SigningKey(seed: Array(repeating: 1, count: 32)))
        let node = try #require(SigningKey(seed: Array(repeating: 2, count: 32)))
        var findings = LookupFindings(hoa: hoa, resolvers: [Endpoint(try address(long(0x131, 0x53)), port: 53)], now: now)
        (findings.resolversFrom, findings.dnsTook) = ("`dns` in /etc/matd/matd.yaml", .microseconds(3200))
        let servers = try ["ims1.example.net", "ims2.mapping.provider.example.net"].enumerated().map { number, name in
            IMSHost(
                priority: 10, weight: 5, addresses: [try address("203.0.113.\(132 + number)"), try address(long(0x132 + number, 0x53))], port: 6288,
                target: try #require(DomainName(name)))
        }
        let relay = RelayHost([Endpoint(try address(long(0x53, 0xfe)), port: 6290)])
        findings.dns = .found(
            .init(form: .record, ordered: servers, keys: [issuer.publicKey], relays: [relay], isAuthenticated: false, lifetime: .seconds(300)))
        let asked = servers.flatMap { $0.endpoints }
        findings.queries = [
            .init(server: asked[1], sequence: 4_012_345_678, tries: 3, outcome: .silent),
            .init(server: asked[3], sequence: 99, tries: 1, outcome: .answered(.ok, rtt: .microseconds(420), text: nil)),
        ]
        let certificate = try #require(
            Certificate(
                issuing: hoa, nodeKey: node.publicKey, notBefore: now.wallMilliseconds - 1_000_000, notAfter: now.wallMilliseconds + 1_000_000,
                with: issuer))
        let record = MappingRecord(
            hoa: hoa, sequence: 1_795_240_100_007, lifetime: 600, issued: now.wallMilliseconds - 12_000, locators: [Locator(moa, preference: 10)])
        let mapping = CertifiedMapping(mapping: try #require(record.signed(with: node)), certificate: certificate)
        findings.mapping = mapping
        findings.checks = LookupFindings.check(mapping, asked: hoa, keys: [issuer.publicKey], now: now)
        return findings
    }

    /// A sentence of each kind that has the reverse name in it.
    private static func lookups() throws -> [String: LookupFindings] {
        let found = try lookup()
        var (lame, absent) = (found, found)
        (lame.mapping, lame.queries, lame.checks, lame.dns) = (nil, [], [], .failed("the DNS server failed (SERVFAIL)"))
        (absent.mapping, absent.queries, absent.checks, absent.dns, absent.isNameTaken) = (nil, [], [], .absent, true)
        return ["lookup": found, "lookup-lame": lame, "lookup-absent": absent]
    }

    @Test("mat lookup fits the terminal too, with each name and address whole", arguments: widths)
    func lookups(_ columns: Int) throws {
        for (name, findings) in try Self.lookups() {
            let text = LookupReport.text(findings, TextStyle(isColored: false, columns: columns))
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
            let long = lines.first { $0.count > columns }
            #expect(long == nil, "\(name), \(columns) columns: \(long ?? "")")
            for word in ["\(findings.name)", Self.long(0x131, 0x53)] + findings.servers.map(\.address.description) {
                #expect(text.contains(word), "\(name), \(columns) columns: \(word) is not there whole")
            }
            let colored = LookupReport.text(findings, TextStyle(isColored: true, columns: columns))
            #expect(colored.replacing(/\u{1B}\[[0-9]+m/, with: "") == text, "\(name), \(columns) columns")
            try compare(lines, with: "\(name).\(columns)")
        }
    }

    // MARK: Views

    private static let views: [View] =
        sizes.flatMap { size -> [View] in
            let (report, peers) = (node(size), peers(size))
            let homes = peers.map(\.home)
            let places = peers.compactMap { $0.locator == $0.home ? nil : $0.locator }
            let peersReport = PeersReport(
                peers: peers, peersCount: report.peersCount, peersTroubled: report.peersTroubled, undecided: report.undecided)
            let (history, explain, list, enrolled) = (history(size), explain(size), list(size), enrolled(size))
            var rates = TrafficRates()
            _ = rates.take(peers, at: .zero)
            let entries = rates.take(
                peers.enumerated().map { place, peer in
                    var peer = peer
                    peer.octetsIn += UInt64(place) * 12_345
                    peer.octetsOut += UInt64(place) * 1_234
                    peer.packetsIn += UInt64(place) * 11
                    return peer
                }, at: .zero + .seconds(1))
            let own = report.locators.map(\.address)
            return [
                View(name: "status-\(size)", text: { StatusText.text(report, $0) }, words: own + (size == "few" ? homes + places : [])),
                View(name: "peers-\(size)", text: { PeersText.text(peersReport, $0) }, words: homes + places),
                View(
                    name: "top-\(size)",
                    text: { TopText.lines(report, history, entries, wallMilliseconds: now.wallMilliseconds, $0).joined(separator: "\n") + "\n" },
                    words: own + homes),
                View(
                    name: "history-\(size)", text: { HistoryText.text(history, $0) },
                    words: history.handovers.flatMap { [$0.home, $0.from?.address, $0.to?.address].compactMap { $0 } }),
                View(name: "explain-\(size)", text: { ExplainText.text(explain, $0) }, words: explain.conversations.compactMap { $0.socket?.remote }),
                View(
                    name: "ims-list-\(size)", text: { IMSText.list(list, now: now, $0) },
                    words: homes + list.mappings.flatMap { $0.locators.map(\.moa) }),
                View(
                    name: "ims-enrolled-\(size)", text: { TokensText.enrolled(enrolled, now: now, $0) },
                    words: homes + enrolled.homes.map(\.publicKey)),
            ]
        } + [
            View(name: "why", text: { WhyText.text(why, $0) }, words: why.candidates.map(\.to)),
            View(name: "trace", text: { TraceText.text(trace, $0) }, words: [long(1, 0xb), long(0x133, 0x53)]),
            View(name: "doctor", text: { DoctorText.text(doctor, $0) }, words: [long(1), long(3), short(4)]),
            View(
                name: "ims-status",
                text: {
                    let status = server(); return IMSText.status(status, $0)
                }, words: ["11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]),
        ]
}
