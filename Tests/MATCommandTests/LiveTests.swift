import MATControl
import MATSignal
import Testing

@testable import MATCommand

/// What `--watch` and `mat top` draw.
@Suite("Live views") struct LiveTests {
    private static func at(_ milliseconds: Int64) -> MonotonicTime { .zero + .milliseconds(milliseconds) }

    private static func peer(_ number: Int, packets: UInt64, octets: UInt64, isIPv4: Bool = false) -> PeerReport {
        let home = isIPv4 ? "198.51.\(number / 256).\(number % 256)" : "2001:db8:20:ffff:1234:5678:9abc:\(String(number, radix: 16))"
        return PeerReport(
            home: home, ownHome: isIPv4 ? "192.0.2.10" : "2001:db8:10::10", path: .encapsulated, locator: "[2001:db8:b:0:aaaa:bbbb:cccc:dddd]:6289",
            ownLocator: "2001:db8:a::10", interface: "wlan0", locators: [], confirmed: true, proven: true, ageMilliseconds: 75_000,
            refreshedAgoMilliseconds: 5_000,
            switches: 2, detourMilliseconds: nil, chosenInterface: nil, packetsOut: packets, packetsIn: packets, octetsOut: octets,
            octetsIn: 2 * octets,
            problem: nil, standing: .mapped, standingReason: nil)
    }

    private static func status(_ peers: [PeerReport]) -> NodeReport {
        var counters = NodeCountersReport()
        counters.handovers = 3
        return NodeReport(
            uptimeMilliseconds: 192_000, registered: true, homes: [],
            locators: [
                LocatorReport(
                    address: "203.0.113.10", interface: "wlan0", state: "sound", deprecated: false, reason: nil, silentMilliseconds: nil,
                    nextCheckMilliseconds: nil, trustedInMilliseconds: nil, failures: 0)
            ], relays: [], unusedAddresses: [], silentRouters: [], routingRules: RoutingRulesReport(base: 0, passed: [], before: []), pathsWatched: 0,
            chosenInterface: nil, peers: peers, peersCount: peers.count, resolving: 0, undecided: UndecidedReport(count: 0, destinations: []),
            dns: nil,
            unknownSources: 0, repairs: 0, lastRepair: nil, counters: counters)
    }

    private static let history = HistoryReport(handovers: [
        HistoryReport.Handover(
            home: "192.0.2.10", atMilliseconds: 1_795_240_150_000, reason: .pathDead,
            from: HistoryReport.Place(address: "203.0.113.10", interface: "wlan0"),
            to: HistoryReport.Place(address: "203.0.113.74", interface: "wwan0"),
            overlap: true, withoutAddressMilliseconds: nil, registeredAfterMilliseconds: 120, peers: 2, peersTold: 2, toldAfterMilliseconds: 9,
            packetsHeld: 0, packetsLost: 0)
    ])

    @Test("Rates are of the time between two looks; the most traffic comes first, who is new has none, and counts that begin anew do no harm")
    func rates() throws {
        var rates = TrafficRates()
        #expect(rates.take([Self.peer(1, packets: 0, octets: 0), Self.peer(2, packets: 0, octets: 0)], at: Self.at(0)).allSatisfy { $0.rate == nil })
        let second = rates.take(
            [Self.peer(1, packets: 10, octets: 1000), Self.peer(2, packets: 40, octets: 4000), Self.peer(3, packets: 9, octets: 9)], at: Self.at(2000)
        )
        #expect(second.map(\.peer.home.last) == ["2", "1", "3"] && second[2].rate == nil)
        #expect(second[0].rate == TrafficRates.Rate(packetsOut: 20, packetsIn: 20, octetsOut: 2000, octetsIn: 4000))
        // A key pressed at once shows the same again.
        #expect(rates.take([Self.peer(2, packets: 41, octets: 4100)], at: Self.at(2001))[0].rate == second[0].rate)
        let anew = rates.take([Self.peer(2, packets: 1, octets: 1)], at: Self.at(3000))
        #expect(anew[0].rate == TrafficRates.Rate())
    }

    @Test(
        "mat top fits 80 and 200 columns, with 2 and with 2,000 peers, says what it left out, and keeps peer, state and rates", arguments: [80, 200],
        [2, 2000])
    func top(columns: Int, count: Int) throws {
        var rates = TrafficRates()
        var style = TextStyle.plain
        style.columns = columns
        _ = rates.take((1...count).map { Self.peer($0, packets: 0, octets: 0) }, at: Self.at(0))
        let peers = (1...count).map { Self.peer($0, packets: UInt64($0), octets: UInt64($0) * 100_000) }
        let entries = rates.take(peers, at: Self.at(1000))
        let lines = TopText.lines(Self.status(peers), Self.history, entries, wallMilliseconds: 1_795_240_162_000, style)
        #expect(lines.allSatisfy { $0.count <= columns }, "\(lines.map(\.count).max() ?? 0)")
        #expect(lines[0] == "matd registered, up 3m 12s, \(count) peers, 3 handovers")
        #expect(lines.contains { $0 == "last handover 12s ago, wlan0 -> wwan0, registered after 120 ms" })
        let head = try #require(lines.first { $0.hasPrefix("PEER") })
        #expect(head.contains("STATE") && head.contains("IN") && head.contains("OUT") && head.contains(" AT ") == (columns == 200))
        // The busiest first.
        let place = try #require(lines.firstIndex(of: head))
        #expect(lines[place + 1].contains(":\(String(count, radix: 16)) ") && lines[place + 1].contains("encapsulated"))
        let frame = Frame.fit(lines, columns: columns, rows: 24)
        #expect(frame.count <= 24 && (count == 2 || frame.last?.hasPrefix("... ") == true))
    }

    @Test("Long lines are folded at the terminal's width with their colour; what would move the cursor is not passed on")
    func fold() {
        #expect(Frame.fold("abcdef", columns: 4) == ["abcd", "ef"])
        #expect(Frame.fold("", columns: 4) == [""])
        #expect(Frame.fold("\u{1B}[31mabcdef\u{1B}[0m", columns: 4) == ["\u{1B}[31mabcd\u{1B}[0m", "\u{1B}[31mef\u{1B}[0m"])
        #expect(Frame.fold("a\u{1B}]0;x\r\tb", columns: 80) == ["a ]0;x  b"])
        let frame = Frame.fit((1...30).map { "\($0)" }, columns: 80, rows: 10)
        #expect(frame.count == 10 && frame.last == "... 21 more lines; a higher window shows more")
        #expect(Frame.octets(["a", "b"]) == "\u{1B}[Ha\u{1B}[K\nb\u{1B}[K\u{1B}[J")
    }

    @Test("Lines are folded between words, under what stands before them; a word that is wider than the terminal stays whole")
    func wrap() {
        #expect(Frame.wrap("  state  one two three", columns: 14, indent: 9) == ["  state  one", "         two", "         three"])
        #expect(Frame.wrap("  a", columns: 80, indent: 4) == ["  a"])
        #expect(Frame.wrap("", columns: 80, indent: 4) == [""])
        #expect(Frame.wrap("ab   cd", columns: 4, indent: 2) == ["ab", "  cd"])
        #expect(Frame.wrap("abcdefgh ij", columns: 4, indent: 2) == ["abcdefgh", "  ij"])
        #expect(Frame.wrap("\u{1B}[31mabc def\u{1B}[0m", columns: 7, indent: 2) == ["\u{1B}[31mabc def\u{1B}[0m"])
    }

    @Test("On a terminal mat peers leaves out columns until it fits; the peer, where it is and its state stay")
    func narrow() throws {
        let report = PeersReport(peers: [Self.peer(1, packets: 10, octets: 10, isIPv4: true)], peersCount: 1, undecided: nil)
        var style = TextStyle.plain
        let wide = PeersText.text(report, style).split(separator: "\n")
        style.columns = 80
        let narrow = PeersText.text(report, style).split(separator: "\n")
        #expect(wide[0].contains("CHECKED") && !narrow[0].contains("CHECKED"))
        #expect(
            narrow.allSatisfy { $0.count <= 80 } && narrow[1].contains("198.51.0.1") && narrow[1].contains("6289")
                && narrow[1].contains("encapsulated"))
    }

    @Test("On a terminal mat status is no wider than that, with names of peers too", arguments: [80, 200], [2, 2000])
    func statusWidth(columns: Int, count: Int) throws {
        var report = Self.status((1...count).map { Self.peer($0, packets: 10, octets: 10, isIPv4: true) })
        report.locators[0].reason = "its translator gives it another port for each destination, so peers behind such ones reach it by a relay alone"
        var style = TextStyle.plain
        style.columns = columns
        let text = StatusText.text(report, names: ["198.51.0.1": "srv.example.net"], style)
        let lines = text.split(separator: "\n")
        #expect(lines.allSatisfy { $0.count <= columns }, "\(lines.first { $0.count > columns } ?? "")")
        #expect(text.contains("srv.example.net") && text.contains("\n    ") == (columns == 80))
        // What is said of the node stays in sight above so many peers.
        #expect(lines.filter { $0.hasPrefix("  198.51.") && $0.contains(" encapsulated") }.count == min(count, 20))
        #expect((count > 20) == text.contains("  2000 peers: 2000 encapsulated\n"))
    }

    @Test("Rates are written with three digits and the unit that fits")
    func quantities() {
        #expect(
            [0, 999, 1000, 12_340, 123_456, 1_234_567, 9.99e9].map { Quantity.bits(perSecond: $0) } == [
                "0 bit/s", "999 bit/s", "1.00 kbit/s", "12.3 kbit/s", "123 kbit/s", "1.23 Mbit/s", "9.99 Gbit/s",
            ])
        #expect([0, 0.04, 0.5, 3, 12.34, 1204.4].map { Quantity.rate($0) } == ["0", "0.0", "0.5", "3.0", "12", "1204"])
    }

    @Test("What can't be watched is refused: too often, and waiting while watching")
    func arguments() throws {
        for arguments in [
            ["status", "--watch", "--interval", "0.1"], ["status", "--watch", "--wait", "3"], ["top", "--interval", "5000"], ["top", "--json"],
        ] {
            #expect(throws: (any Error).self, "\(arguments)") { try MatCommand.parseAsRoot(arguments) }
        }
        #expect(try MatCommand.parseAsRoot(["peers", "--watch", "--json"]) is PeersCommand)
    }
}
