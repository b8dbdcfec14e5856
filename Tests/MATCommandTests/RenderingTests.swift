import MATControl
import MATRuntime
import MATSignal
import Testing

@testable import MATCommand

@Suite("What mat prints")
struct RenderingTests {
    @Test(
        "Durations are given in their two largest units",
        arguments: [
            (-5, "0s"), (0, "0s"), (45, "45s"), (60, "1m"), (192, "3m 12s"), (7500, "2h 5m"), (86_400, "1d"),
            (31_535_999, "364d 23h"),
            (Int64.max, "106751991167300d 15h"),
        ] as [(Int64, String)])
    func durations(seconds: Int64, text: String) {
        #expect(Quantity.duration(seconds: seconds) == text)
    }

    @Test("Round-trip times keep three digits that mean something")
    func roundTrips() {
        #expect(Quantity.milliseconds(.microseconds(423)) == "0.42 ms")
        #expect(Quantity.milliseconds(.microseconds(1050)) == "1.05 ms")
        #expect(Quantity.milliseconds(.microseconds(12_340)) == "12.3 ms")
        #expect(Quantity.milliseconds(.milliseconds(250)) == "250 ms")
    }

    @Test("Dates are in UTC, and times that no calendar holds do no harm")
    func dates() {
        #expect(Quantity.date(unixSeconds: 1_795_240_150) == "2026-11-21 05:49:10 UTC")
        #expect(Quantity.date(unixMilliseconds: .max) == "18446744073709551 s after 1970")
    }

    @Test("Columns are as wide as their widest cell, numbers to the right, and empty columns left out")
    func tables() {
        var table = TextTable([("NAME", .left), ("EMPTY", .left), ("COUNT", .right)])
        table.add(["a", "", "12"])
        table.add(["longer", "", "123456"])
        #expect(table.lines() == ["NAME     COUNT", "a           12", "longer  123456"])
        #expect(table.lines(indent: 2).first == "  NAME     COUNT")
    }

    static let status: JSONValue = [
        "uptimeMilliseconds": 192_000, "registered": true, "chosenInterface": nil, "resolving": 0, "repairs": 0,
        "homes": [
            [
                "address": "192.0.2.10", "locators": ["203.0.113.10", "203.0.113.74"], "servers": ["203.0.113.132:6288"],
                "state": "registered",
                "ageMilliseconds": 12_000, "expiresInMilliseconds": 588_000, "certificateNotAfterMilliseconds": 1_795_240_150_000, "sequence": 7,
                "problem": nil,
            ]
        ],
        "locators": [
            ["address": "203.0.113.10", "interface": "wlan0"], ["address": "203.0.113.74", "interface": "wwan0"],
        ],
        "counters": ["handovers": 1],
        "peers": [
            [
                "home": "198.51.100.20", "ownHome": "192.0.2.10", "locator": "198.51.100.20", "ownLocator": "203.0.113.10",
                "interface": "wlan0",
                "locators": ["198.51.100.20"], "confirmed": true, "proven": true, "ageMilliseconds": 75_000, "refreshedAgoMilliseconds": 5_000,
                "switches": 2,
                "packetsOut": 1234, "packetsIn": 1200, "octetsOut": 1, "octetsIn": 1,
            ]
        ],
    ]

    /// A daemon's answer, decoded as `mat` decodes it.
    static func report<Report: Decodable>(_ answer: JSONValue, as type: Report.Type = NodeReport.self) throws -> Report {
        try ControlJSON.decode(type, from: answer.write())
    }

    @Test("The status of a registered node")
    func registered() throws {
        #expect(
            StatusText.text(try Self.report(Self.status)) == """
                matd is registered, up 3m 12s, 1 handover

                Home address 192.0.2.10
                  state         registered, confirmed 12s ago, good for 9m 48s
                  reachable at  203.0.113.10, 203.0.113.74
                  servers       203.0.113.132:6288
                  certificate   valid until 2026-11-21 05:49:10 UTC

                Mobile addresses
                  INTERFACE  MOBILE ADDRESS
                  wlan0      203.0.113.10    preferred
                  wwan0      203.0.113.74

                Peers (1)
                  PEER           AT    FROM          VIA    STATE     AGE  CHECKED  MOVES  PACKETS OUT    IN
                  198.51.100.20  home  203.0.113.10  wlan0  ok     1m 15s       5s      2         1234  1200

                """)
    }

    @Test("A node that can't register says why, and what to do")
    func problem() throws {
        let problem = Problem(.noAnswer, of: "192.0.2.10", "no answer from 203.0.113.132:6288")
        let status: JSONValue = [
            "registered": false,
            "homes": [["address": "192.0.2.10", "state": "pausing", "problem": .string(problem.text), "remedy": .string(problem.remedy)]],
            "locators": [], "peers": [],
        ]
        let text = StatusText.text(try Self.report(status))
        #expect(text.contains("not registered"))
        #expect(text.contains("problem       no answer from 203.0.113.132:6288"))
        #expect(text.contains("`mat lookup 192.0.2.10` tries another port"))
        #expect(text.contains("none: no interface has a usable address"))
        // An earlier matd does not say when.
        #expect(text.contains("state         failed; will try again"))
        let next: JSONValue = [
            "registered": false,
            "homes": [
                ["address": "192.0.2.10", "state": "pausing", "nextTryMilliseconds": 12_400, "problem": .string(problem.text)],
                ["address": "2001:db8:10::10", "state": "waiting", "servers": [], "nextTryMilliseconds": 30_000],
            ],
            "locators": [["address": "203.0.113.10", "interface": "wlan0"]], "peers": [],
        ]
        let timed = StatusText.text(try Self.report(next))
        #expect(timed.contains("failed; next try in 12s"), "\(timed)")
        #expect(timed.contains("waiting for DNS to name a server, asked again in 30s"), "\(timed)")
    }

    @Test("A node without a network waits for one, not for the DNS, and is reachable nowhere")
    func offline() throws {
        let status: JSONValue = [
            "registered": false,
            "homes": [["address": "192.0.2.10", "state": "waiting", "locators": ["203.0.113.10"], "servers": ["203.0.113.132:6288"]]],
            "locators": [], "peers": [],
        ]
        let text = StatusText.text(try Self.report(status))
        #expect(text.contains("state         waiting for a usable mobile address\n"), "\(text)")
        #expect(text.contains("reachable at  nowhere now; registered at 203.0.113.10\n"), "\(text)")
    }

    @Test("Status names every address that is not used and why, routers that are silent, and rules that want everything")
    func unused() throws {
        let status: JSONValue = [
            "registered": true, "homes": [], "peers": [],
            "locators": [
                ["interface": "wwan0", "address": "203.0.113.70", "state": "sound"],
                [
                    "interface": "wlan0", "address": "203.0.113.9", "state": "refused",
                    "reason": "a translator (NAT) stands before it: the IMS sees 192.0.2.1:7", "trustedInMilliseconds": 9_000,
                ],
                ["interface": "wwan0", "address": "203.0.113.71", "state": "sound", "deprecated": true],
            ],
            "unusedAddresses": [["interface": "eth0", "address": "10.9.9.9", "reason": "eth0 has no IPv4 default route"]],
            "silentRouters": [["interface": "wlan0", "address": "fe80::1", "instead": "fe80::2"]],
            "routingRules": ["base": 6270, "passed": ["6269: not fwmark 51820 lookup 51820"], "before": ["5270: from all lookup 52"]],
        ]
        let text = StatusText.text(try Self.report(status))
        for line in [
            "not usable: a translator (NAT) stands before it: the IMS sees 192.0.2.1:7, tried again in 9s", "deprecated: used last",
            "eth0  10.9.9.9 is not used: eth0 has no IPv4 default route", "router fe80::1 on wlan0 does not answer; fe80::2 is used instead",
            "6269: not fwmark 51820 lookup 51820", "5270: from all lookup 52", "routing-rules: first", "routing-rules: fixed",
        ] { #expect(text.contains(line), "\(line)\n\(text)") }
    }

    @Test("DNS servers are shown with their health, and destinations in doubt with the reason and what to do")
    func names() throws {
        var status = Self.status
        if case .object(var fields) = status {
            fields["dns"] = [
                "from": "/etc/resolv.conf",
                "servers": [
                    ["address": "203.0.113.131", "answeredAgoMilliseconds": 3_000, "failingMilliseconds": nil],
                    ["address": "fe80::1%wlan0", "failingMilliseconds": 90_000, "failure": "no DNS server answered in time"],
                ],
            ]
            fields["undecided"] = [
                "count": 21,
                "destinations": [
                    ["address": "203.0.113.200", "isPlain": true, "reason": "the DNS server failed (SERVFAIL)", "ageMilliseconds": 75_000],
                    ["address": "192.0.2.99", "isPlain": false, "reason": "no DNS server answered in time", "ageMilliseconds": 5_000],
                ],
            ]
            status = .object(fields)
        }
        let text = StatusText.text(try Self.report(status))
        #expect(
            text.contains(
                """
                DNS servers, from /etc/resolv.conf
                  SERVER
                  203.0.113.131  answered 3s ago
                  fe80::1%wlan0  no DNS server answered in time, for 1m 30s

                """))
        #expect(text.contains("(21, of which these were used last)"))
        #expect(text.contains("203.0.113.200  plain      1m 15s  the DNS server failed (SERVFAIL)"))
        #expect(text.contains("192.0.2.99     waits          5s"))
        #expect(text.contains("`except` in matd.yaml") && !text.contains("none of them gives answers"))
        // If the only server is silent, all look-ups fail.
        if case .object(var fields) = status {
            fields["dns"] = [
                "from": "/etc/resolv.conf",
                "servers": [["address": "203.0.113.131", "failingMilliseconds": 90_000, "failure": "no DNS server answered in time"]],
            ]
            #expect(StatusText.text(try Self.report(.object(fields))).contains("none of them gives answers"))
        }
    }

    @Test("Answers of a daemon of another version are shown as far as they are understood, and what is of another kind is said")
    func strangeAnswers() throws {
        for answer in [[:], ["homes": [[:]], "peers": [["home": "192.0.2.1"]], "new": 5]] as [JSONValue] {
            #expect(!StatusText.text(try Self.report(answer)).isEmpty)
            #expect(!IMSText.status(try Self.report(answer, as: IMSStatusReport.self)).isEmpty)
            #expect(!IMSText.list(try Self.report(answer, as: MappingListReport.self), now: SystemClock.now()).isEmpty)
            #expect(!IMSText.mapping(try Self.report(answer, as: MappingReport.self), now: SystemClock.now()).isEmpty)
            #expect(!PeersText.text(try Self.report(answer, as: PeersReport.self)).isEmpty)
            #expect(!HandoverText.text(try Self.report(answer)).isEmpty)
        }
        for (answer, reason) in [(["homes": 5], "\"homes\""), (["peers": ["x"]], "\"peers[0]\"")] as [(JSONValue, String)] {
            let error = #expect(throws: ControlError.self) { try Self.report(answer) }
            #expect(error?.description.contains(reason) == true, "\(error?.description ?? "")")
        }
    }

    @Test("A peer without a path, and one that has not proven where it is, can be told from a good one")
    func peerStates() throws {
        let lost: JSONValue = ["home": "192.0.2.11", "locator": nil, "confirmed": true, "proven": false]
        let unproven: JSONValue = ["home": "192.0.2.12", "locator": "203.0.113.9", "confirmed": true, "proven": false]
        let provisional: JSONValue = ["home": "192.0.2.13", "locator": "203.0.113.9", "confirmed": false, "proven": true]
        let text = try Self.peers([lost, unproven, provisional])
        #expect(text.contains("no path") && text.contains("unreachable"))
        #expect(text.contains("unproven") && text.contains("provisional"))
    }

    @Test("A conversation that would not survive a move is never called good: one-sided, unreachable and plain ones are told, with the reason")
    func standings() throws {
        let peer: [String: JSONValue] = [
            "home": "192.0.2.11", "locator": "203.0.113.9", "path": "direct", "confirmed": true, "proven": true,
        ]
        func with(_ standing: JSONValue, _ reason: JSONValue) -> JSONValue {
            .object(peer.merging(["standing": standing, "standingReason": reason]) { $1 })
        }
        let good = try Self.peers([with("mapped", nil)])
        #expect(good.contains(" direct ") && !good.contains("192.0.2.11:"))
        let oneSided = try Self.peers([with("oneSided", "192.0.2.10 is not registered yet; it may not hear of our moves")])
        #expect(oneSided.contains(" one-sided ") && !oneSided.contains(" direct "))
        #expect(oneSided.hasSuffix("192.0.2.11: 192.0.2.10 is not registered yet; it may not hear of our moves\n"))
        let unreachable = try Self.peers([with("unreachable", "this host has no address in any network: packets to it wait")])
        #expect(unreachable.contains(" unreachable ") && unreachable.hasSuffix("packets to it wait\n"))
        let plain: JSONValue = [
            "peers": [],
            "undecided": [
                "count": 2,
                "destinations": [
                    ["address": "198.51.100.20", "isPlain": true, "reason": "no DNS server answered"],
                    ["address": "198.51.100.21", "isPlain": false, "reason": "no DNS server answered"],
                ],
            ],
        ]
        let text = PeersText.text(try Self.report(plain, as: PeersReport.self))
        #expect(text == "no peers\n198.51.100.20: plain, it survives no move: no DNS server answered\n")
    }

    private static func peers(_ peers: [JSONValue]) throws -> String {
        PeersText.text(try report(["peers": .array(peers)], as: PeersReport.self))
    }

    @Test("A peer whose packets travel encapsulated is shown so, and mat why says why and what would change it")
    func why() throws {
        let peer: JSONValue = ["home": "192.0.2.11", "locator": "203.0.113.9:6289", "path": "encapsulated", "confirmed": true, "proven": true]
        #expect(try Self.peers([peer]).contains("encapsulated"))
        let why: JSONValue = [
            "peer": "192.0.2.11", "ownHome": "192.0.2.10", "translations": ["10.0.0.5 is translated by 198.51.100.7, mapping endpoint-independent"],
            "candidates": [
                ["path": "direct", "to": "203.0.113.9:6289", "used": false, "state": "does not pass", "remedy": "a global address"],
                ["path": "encapsulated", "to": "203.0.113.9:6289", "from": "10.0.0.5", "used": true, "state": "proven 12 s ago"],
                ["path": "encapsulated", "to": "[2001:db8::9]:6289", "used": false, "state": "not tried", "remedy": "a network with IPv6"],
                ["path": "relayed", "to": "203.0.113.134:6290", "used": false, "state": "bound there", "remedy": "that the peer binds there"],
            ],
        ]
        let text = WhyText.text(try Self.report(why, as: WhyReport.self))
        #expect(text.hasPrefix("192.0.2.11: encapsulated, to 203.0.113.9:6289 from 10.0.0.5\n  10.0.0.5 is translated"))
        #expect(text.contains("proven 12 s ago") && text.hasSuffix("a better path would need:\n    a global address\n"))
        let none: JSONValue = [
            "peer": "192.0.2.11", "ownHome": "192.0.2.10", "translations": [], "candidates": [], "problem": "no conversation with it",
        ]
        #expect(WhyText.text(try Self.report(none, as: WhyReport.self)) == "192.0.2.11: no path\n  no conversation with it\n")
    }

    @Test("The history has a line for each handover, and a picture with a bar for each of its times")
    func history() throws {
        let answer: JSONValue = [
            "handovers": [
                [
                    "home": "192.0.2.10", "atMilliseconds": 1_795_240_150_000, "reason": "preferred",
                    "from": ["address": "203.0.113.10", "interface": "wlan0"], "to": ["address": "198.51.100.7", "interface": "wwan0"],
                    "overlap": true, "registeredAfterMilliseconds": 31, "peers": 2, "peersTold": 2, "toldAfterMilliseconds": 52,
                    "packetsHeld": 0, "packetsLost": 0,
                ],
                [
                    "home": "192.0.2.10", "atMilliseconds": 1_795_240_160_000, "reason": "address gone",
                    "from": ["address": "198.51.100.7", "interface": "wwan0"], "overlap": false, "withoutAddressMilliseconds": 64_000,
                    "peers": 0, "peersTold": 0, "packetsHeld": 7, "packetsLost": 3,
                ],
            ]
        ]
        let report = try Self.report(answer, as: HistoryReport.self)
        let lines = HistoryText.text(report).split(separator: "\n").map(String.init)
        #expect(lines.count == 3)
        #expect(lines[1].contains("203.0.113.10 (wlan0)") && lines[1].contains("better address, with overlap") && lines[1].contains("31 ms"))
        #expect(lines[1].contains("2 of 2, 52 ms"))
        #expect(lines[2].contains("nowhere yet") && lines[2].contains("address gone, none for 1m 4s") && lines[2].hasSuffix("7     3"))
        #expect(HistoryText.text(HistoryReport(handovers: [])).contains("no handovers"))
        let picture = HistoryPicture.svg(report)
        #expect(picture.hasPrefix("<svg") && picture.hasSuffix("</svg>\n"))
        #expect(picture.contains("203.0.113.10 → 198.51.100.7") && picture.contains("1m 4s"))
        #expect(picture.components(separatedBy: "class=\"gap\"").count == 3)
    }

    @Test("Colour appears only where it was decided for")
    func color() throws {
        #expect(!StatusText.text(try Self.report(Self.status)).contains("\u{1B}"))
        #expect(StatusText.text(try Self.report(Self.status), TextStyle(isColored: true)).contains("\u{1B}[32m"))
    }

    @Test("A server's mappings, with those that ended marked")
    func list() throws {
        let now = Now(monotonic: .zero, wallMilliseconds: 1_795_240_150_000)
        let answer: JSONValue = [
            "total": 5,
            "mappings": [
                [
                    "hoa": "192.0.2.10", "locators": [["moa": "203.0.113.10", "preference": 10]], "expiresMilliseconds": 1_795_240_450_000,
                    "isExpired": false,
                    "isWithdrawn": false, "isRegisteredHere": true, "updatedAtMilliseconds": 1_795_240_140_000,
                ],
                [
                    "hoa": "192.0.2.11", "locators": [["moa": "192.0.2.11", "preference": 10]], "expiresMilliseconds": 1_795_240_000_000,
                    "isExpired": true,
                    "isWithdrawn": false, "isRegisteredHere": true, "updatedAtMilliseconds": 1_795_140_140_000,
                ],
            ], "next": "192.0.2.11/32",
        ]
        #expect(
            IMSText.list(try Self.report(answer, as: MappingListReport.self), now: now) == """
                HOME ADDRESS  AT            STATE       EXPIRES IN  REGISTERED
                192.0.2.10    203.0.113.10  registered          5m         10s
                192.0.2.11    home          expired             0s       1d 3h
                5 are held in all; more with --after 192.0.2.11

                """)
    }
}
