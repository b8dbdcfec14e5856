import MATControl

/// One of each report, with every field set.
enum Examples {
    static var programs: ProgramsReport {
        ProgramsReport(groups: [
            ProgramsReport.Group(
                via: .home, homes: ["192.0.2.10", "2001:db8:10::10"], mark: 0x6288_0001,
                groups: ["/user.slice/mat-4026531840-62880001-192.0.2.10+2001:db8:10::10"],
                programs: [ProgramsReport.Program(process: 4711, user: 1000, command: "ssh cn.example")],
                sockets: [
                    ProgramsReport.Socket(
                        kind: "tcp", state: "established", local: "192.0.2.10:40000", remote: "198.51.100.20:22", path: .direct,
                        locator: "203.0.113.200", reason: nil, user: 1000, inode: 77, process: 4711),
                    ProgramsReport.Socket(
                        kind: "udp", state: "unconnected", local: "0.0.0.0:5353", remote: nil, path: nil, locator: nil, reason: nil, user: 1000,
                        inode: 78,
                        process: nil),
                ]),
            ProgramsReport.Group(
                via: .plain, homes: [], mark: 0x6288_0002, groups: ["/mat-4026531840-62880002-plain"], programs: [], sockets: [],
                furtherPrograms: 2, furtherSockets: 3),
        ])
    }

    static var node: NodeReport {
        NodeReport(
            uptimeMilliseconds: 192_000, registered: false, homes: [home, network],
            locators: [
                LocatorReport(
                    address: "203.0.113.10", interface: "wlan0", state: "sound", deprecated: false, reason: nil, silentMilliseconds: nil,
                    nextCheckMilliseconds: nil, trustedInMilliseconds: nil, failures: 0),
                LocatorReport(
                    address: "203.0.113.74", interface: "wwan0", state: "dead", deprecated: true, reason: "nothing answers over it",
                    silentMilliseconds: 12_000,
                    nextCheckMilliseconds: 3_000, trustedInMilliseconds: 40_000, failures: 2,
                    translation: TranslationReport(
                        seen: "198.51.100.7:40001", mapping: .endpointIndependent,
                        text: "translated by 198.51.100.7, mapping endpoint-independent")),
            ],
            relays: [
                RelayReport(
                    home: "192.0.2.10", addresses: ["203.0.113.53:6290", "[2001:db8::53]:6290"], state: .bound, address: "203.0.113.53:6290",
                    locator: "203.0.113.74", observed: "198.51.100.7:40001", reason: nil, gateway: "routed"),
                RelayReport(
                    home: "192.0.2.10", addresses: ["203.0.113.54:6290"], state: .refused, address: "203.0.113.54:6290", locator: "203.0.113.74",
                    observed: nil, reason: "it serves other home addresses only (code 4)", gateway: nil),
            ],
            relayOnly: true,
            unusedAddresses: [UnusedAddressReport(address: "10.9.9.9", interface: "eth0", reason: "eth0 has no IPv4 default route")],
            silentRouters: [
                SilentRouterReport(address: "fe80::1", interface: "wlan0", instead: "fe80::2"),
                SilentRouterReport(address: "fe80::3", interface: "wlan0", instead: nil),
            ],
            routingRules: RoutingRulesReport(base: 6270, passed: ["6269: not fwmark 51820 lookup 51820"], before: ["5270: from all lookup 52"]),
            pathsWatched: 4, chosenInterface: "wlan0", peers: [peer], peersCount: 1, peersTroubled: 1, resolving: 2,
            undecided: UndecidedReport(
                count: 1,
                destinations: [
                    UndecidedReport.Destination(
                        address: "203.0.113.200", isPlain: true, reason: "the DNS server failed (SERVFAIL)", ageMilliseconds: 75_000,
                        askedAgoMilliseconds: 5_000)
                ]),
            dns: DNSReport(
                from: "/etc/resolv.conf",
                servers: [
                    DNSReport.Server(
                        address: "fe80::1%wlan0", port: 53, isUpstream: false, answeredAgoMilliseconds: 3_000, failingMilliseconds: nil, failure: nil),
                    DNSReport.Server(
                        address: "203.0.113.131", port: 53, isUpstream: true, answeredAgoMilliseconds: nil, failingMilliseconds: 90_000,
                        failure: "no answer"),
                ]), unknownSources: 5, repairs: 6, lastRepair: "the table was gone", counters: counters)
    }

    static var home: HomeReport {
        HomeReport(
            address: "192.0.2.10", prefix: nil, locators: ["203.0.113.10"], servers: ["203.0.113.132:6288"], state: "pausing", ageMilliseconds: nil,
            expiresInMilliseconds: nil, certificateNotAfterMilliseconds: 1_795_240_150_123, certificateEndsSoon: true, sequence: 1_790_000_000_000,
            problem: Problem(.noAnswer, of: "192.0.2.10", "no answer from 203.0.113.132:6288"), nextTryMilliseconds: 12_000)
    }

    static var network: HomeReport {
        HomeReport(
            address: "2001:db8:10:7::1", prefix: "2001:db8:10:7::/64", locators: [], servers: [], state: "registered", ageMilliseconds: 12_000,
            expiresInMilliseconds: 588_000, certificateNotAfterMilliseconds: 1_795_240_150_000, certificateEndsSoon: false, sequence: 7, problem: nil)
    }

    static var why: WhyReport {
        WhyReport(
            peer: "198.51.100.20", ownHome: "192.0.2.10",
            candidates: [
                WhyReport.Candidate(
                    path: .direct, to: "203.0.113.20:6289", from: "10.0.0.5", used: false,
                    state: "our 10.0.0.5 is translated by 198.51.100.7: rewritten packets do not pass in the middle of a connection",
                    remedy: "use a network that gives this host a global address"),
                WhyReport.Candidate(
                    path: .encapsulated, to: "203.0.113.20:6289", from: "10.0.0.5", used: true, state: "proven 12 s ago", remedy: nil),
            ], translations: ["10.0.0.5 is translated by 198.51.100.7, mapping endpoint-independent"],
            peerTranslation: "its record lists relays alone", problem: nil,
            plain: [
                WhyReport.PlainConversation(
                    transport: "tcp", local: "10.0.0.5:40000", remote: "203.0.113.20:22", reason: "203.0.113.20 is where 198.51.100.20 is")
            ])
    }

    static var peer: PeerReport {
        PeerReport(
            home: "198.51.100.20", ownHome: "192.0.2.10", path: nil, locator: nil, ownLocator: nil, interface: nil, locators: ["10.1.1.1"],
            confirmed: true,
            proven: false, ageMilliseconds: 75_000, refreshedAgoMilliseconds: 5_000, switches: 2, detourMilliseconds: 9_000, chosenInterface: "wwan0",
            packetsOut: 1234,
            packetsIn: 1200, octetsOut: 99_000, octetsIn: 98_000,
            problem: Problem(.notGlobal, of: "198.51.100.20", "its locator 10.1.1.1 is a private address (RFC 1918) and not of global scope"),
            standing: .unreachable, standingReason: "no path to it has been found to work; `mat why 198.51.100.20` says what was tried")
    }

    static var traffic: TrafficReports {
        TrafficReports(
            homes: ["192.0.2.10"],
            traffic: [
                TrafficReport(
                    local: nil, remote: "203.0.113.200", way: .plain, cause: .noServers,
                    text: "the DNS names no mapping server for 203.0.113.200: it is a plain host", survives: .no, survivalReason: nil,
                    remedy: "a gateway carries plain hosts' conversations", peer: nil),
                TrafficReport(
                    local: "192.0.2.10", remote: "198.51.100.20", way: .mapped, cause: .peer, text: "it is a MAT node", survives: .perhaps,
                    survivalReason: "192.0.2.10 is not registered yet", remedy: nil, peer: peer),
            ])
    }

    static var history: HistoryReport {
        HistoryReport(handovers: [
            HistoryReport.Handover(
                home: "192.0.2.10", atMilliseconds: 1_790_000_000_000, reason: .pathDead,
                from: HistoryReport.Place(address: "203.0.113.10", interface: "wlan0"),
                to: HistoryReport.Place(address: "203.0.113.74", interface: nil), overlap: true, withoutAddressMilliseconds: nil,
                registeredAfterMilliseconds: 31, peers: 2, peersTold: 2, toldAfterMilliseconds: 52, packetsHeld: 0, packetsLost: 0),
            HistoryReport.Handover(
                home: "192.0.2.10", atMilliseconds: 1_790_000_060_000, reason: .addressGone,
                from: HistoryReport.Place(address: "203.0.113.74", interface: "wwan0"), to: nil, overlap: false, withoutAddressMilliseconds: 64_000,
                registeredAfterMilliseconds: nil, peers: 1, peersTold: 0, toldAfterMilliseconds: nil, packetsHeld: 7, packetsLost: 3),
        ])
    }

    static var steer: SteerReport { SteerReport(process: 4711, via: .home, homes: ["192.0.2.10"]) }

    static var token: TokenReport { TokenReport(token: "mat-join:NOT-A-REAL-ONE", id: "746f6b656e2d6964") }

    static var tokens: TokensReport {
        TokensReport(tokens: [
            TokensReport.Token(
                id: "746f6b656e2d6964", gives: ["192.0.2.0/24", "2001:db8:10::9"], uses: 1, usesMax: 3, createdAtMilliseconds: 1_790_000_000_000,
                expiresAtMilliseconds: nil, certificateMilliseconds: 3_600_000, renewal: false, revokedAtMilliseconds: 1_790_000_001_000)
        ])
    }

    static var enrolled: EnrolledReport {
        EnrolledReport(
            homes: [
                EnrolledReport.Home(
                    home: "192.0.2.9", publicKey: "KEY=", certificate: "0011223344556677", by: "token 746f6b656e2d6964",
                    givenAtMilliseconds: 1_790_000_000_000, validUntilMilliseconds: 1_821_536_000_000, renewal: true, lastSeenMilliseconds: nil)
            ], next: "192.0.2.9/32")
    }

    static var counters: NodeCountersReport {
        var counters = NodeCountersReport()
        counters.handovers = 1
        counters.messagesSent = 18_446_744_073_709_551_615
        return counters
    }

    static var ims: IMSStatusReport {
        var report = IMSStatusReport()
        report.version = "0.1.0"
        report.uptimeMilliseconds = 60_000
        report.port = 6288
        report.prefixes = [
            IMSStatusReport.Prefix(
                prefix: "192.0.2.0/24", mobilePrefixes: ["198.51.100.0/24"], mappings: 2, mappingsMax: nil, updatesPerSecondMax: 1000)
        ]
        report.keys = [IMSStatusReport.Key(id: "e4bd66120dc0c864", publicKey: "NEW=", use: "signing", certificates: 900)]
        report.canEnrol = true
        report.certificates = IMSStatusReport.Certificates(endingSoon: 3, ended: 1, revoked: 2)
        report.mappingsExpired = 1
        report.metrics = "http://127.0.0.1:9100/metrics"
        report.store = IMSStatusReport.Store(path: "/var/lib/imsd/ims.db", lastFailure: "disk full", isLoading: false, unavailable: nil)
        report.mappings = 3
        report.datagrams = IMSStatusReport.Datagrams(received: 10, passedToCore: 4, lostBeforeCore: 0)
        report.counters.received = ["MA Query": 6]
        report.counters.answered = ["MA Answer": ["ok": 5, "not found": 1]]
        return report
    }

    static var mapping: MappingReport {
        var report = MappingReport(hoa: "192.0.2.10")
        report.locators = [MappingReport.Locator(moa: "203.0.113.10", preference: 10)]
        report.sequence = 1_790_000_000_000
        report.issuedMilliseconds = 1_790_000_000_000
        report.expiresMilliseconds = 1_790_000_600_000
        report.isRegisteredHere = true
        report.updateSource = "203.0.113.10:6289"
        report.updatedAtMilliseconds = 1_790_000_000_500
        report.endpoints = [MappingReport.Endpoint(endpoint: "198.51.100.7:41000", preference: 20)]
        report.relays = [MappingReport.Endpoint(endpoint: "203.0.113.53:6290", preference: 250)]
        report.isConfirmed = true
        report.boundAt = "198.51.100.7:41000"
        report.subscribers = ["198.51.100.20:6289"]
        report.certificate = MappingReport.Certificate(
            id: "0011223344556677", issuer: "e4bd66120dc0c864", endsSoon: false, notBeforeMilliseconds: 1_780_000_000_000,
            notAfterMilliseconds: 1_810_000_000_000, nodeKey: "KEY=")
        return report
    }

    static var unseen: MappingReport {
        var report = MappingReport(hoa: "192.0.2.11")
        report.isUnseen = true
        return report
    }
}
