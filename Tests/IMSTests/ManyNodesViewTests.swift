import Foundation
import Glibc
import Logging
import MATControl
import MATRuntime
import MATServer
import MATSignal
import SeededRandom
import Testing

/// The page for people where a person can't look at each node: a report as imsd or mat-relay makes it of 2,000, in a real browser.
@Suite("The page for people, of 2,000 nodes", .serialized)
struct ManyNodesViewTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    /// Long names and many places, in networks of very different sizes.
    private func report(of program: String) throws -> ViewReport {
        var random = SeededGenerator(seed: 7)
        var report = ViewReport(
            program: program, version: "0.2.0", title: "2001:db8:10::/48, 192.0.2.0/24", nowMilliseconds: 1_790_000_000_000,
            uptimeMilliseconds: 7_200_000)
        var networks = ViewNetworks()
        var members: [String] = []
        for number in 0..<2000 {
            // Squared, so that some networks have many and most few.
            let share = Double.random(in: 0..<1, using: &random)
            let network = Int(share * share * share * 60)
            let text =
                network % 3 == 0
                ? "2001:db8:a\(String(network, radix: 16))::\(String(number, radix: 16))" : "198.\(18 + network / 30).\(network).\(number % 250 + 1)"
            let address = try #require(IPAddress(text))
            let isAway = number % 23 == 0
            let name = isAway ? ViewNetworks.nowhere : ViewNetworks.name(of: address)
            members.append(name)
            networks.add(in: name, isAway: isAway)
            guard report.nodes.count < ViewReport.nodesMax else { continue }
            let home = "2001:db8:10:ffff:ffff:ffff:\(String(number, radix: 16)):ffff"
            let places = [
                "\(text)", "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535", "relay [2001:db8:53:ffff:ffff:ffff:ffff:ffff]:6290",
                "relay 198.51.100.200:6290",
            ]
            report.nodes.append(
                .init(
                    home: home, places: isAway ? [] : places, state: isAway ? .withdrawn : .registered,
                    heardAtMilliseconds: 1_790_000_000_000 - UInt64(number)))
        }
        report.nodesCount = 2000
        if program == "imsd" {
            for _ in 0..<4000 {
                let (one, other) = (members.randomElement(using: &random) ?? "", members.randomElement(using: &random) ?? "")
                _ = networks.addConversation(one, other)
            }
            report.conversations = (0..<ViewReport.conversationsMax).map {
                .init(from: report.nodes[$0 % 500].home, to: report.nodes[($0 * 7 + 1) % 500].home)
            }
        }
        networks.write(into: &report)
        report.figures = ["Nodes registered", "Queries", "Updates", "Pushes", "Memory"].map { .init($0, 2000) }
        report.changes = report.nodes.prefix(200).map {
            .init(atMilliseconds: 1_790_000_000_000, home: $0.home, what: "moved", before: $0.places, after: $0.places)
        }
        return report
    }

    @Test("They are drawn by network, with what is left out said, and what is sent and drawn has bounds", arguments: ["imsd", "mat-relay"])
    func many(_ program: String) throws {
        try #require(Browser.isInstalled, "chromium is not installed; deploy/install-packages installs what the tests need")
        let port = try FreePort.find(SOCK_STREAM)
        let report = try report(of: program)
        #expect(report.networks.count == ViewReport.networksMax && report.networks.reduce(0) { $0 + $1.nodesCount } == 2000)
        #expect(report.networks.last?.name == ViewNetworks.others && report.networksCount > ViewReport.networksMax)
        #expect(report.traffic.count <= ViewReport.trafficMax)

        nonisolated(unsafe) let loop = try EventLoop()
        let far = ViewReport.Node(home: "2001:db8:10::beyond", places: ["203.0.113.77"], state: .registered, heardAtMilliseconds: nil)
        let page = HTTPListener.view(
            of: program, loop,
            find: { text, completion in
                var found = ViewReport.Found(foundCount: 600, isComplete: true)
                found.look(at: far, for: text)
                found.lookedAtCount = 2000
                completion(found)
            }
        ) { report }
        try page.change(to: Endpoint(IPAddress(ipv4: 0x7F00_0001), port: port), Logger(label: "view"))
        let poster = loop.poster
        let thread = try SystemThread.start { try? loop.run() }
        defer {
            poster.post { loop.stop() }
            pthread_join(thread, nil)
            page.stop()
        }
        // By ssh from afar it is to be of use as well: an event every two seconds.
        let event = try HTTPReply.get("/view.json", port: port).body
        #expect(event.utf8.count < 320 << 10, "\(event.utf8.count) octets")
        let fixed = try ["/", "/view.css", "/view.js"].reduce(0) { try $0 + HTTPReply.get($1, port: port).body.utf8.count }
        #expect(fixed < 48 << 10, "\(fixed) octets")

        let browser = try Browser("http://127.0.0.1:\(port)/", directory: directory.path)
        var seen = ""
        for _ in 0..<200 where !seen.contains("500 are listed here of 2000") {
            usleep(50_000)
            seen = try browser.document()
        }
        #expect(seen.contains("500 are listed here of 2000"))
        func count(_ text: String) -> Int { seen.components(separatedBy: text).count - 1 }
        #expect(count("class=\"place\"") == ViewReport.networksMax)
        #expect(count("class=\"talk\"") <= ViewReport.trafficMax && (count("class=\"talk\"") > 100) == (program == "imsd"))
        #expect(
            seen.contains(
                "All 2000 nodes, by network: \(report.networksCount) networks, the smallest \(report.networksCount - 31) together as others."))
        if program == "imsd" { #expect(seen.contains(" of 4000 conversations, thicker for more.")) }
        #expect(seen.utf8.count < 512 << 10, "\(seen.utf8.count) octets")
        // Who looks for one that the list has no room for finds it all the same.
        try browser.evaluate(
            "document.getElementById('filter').value = '203.0.113.7'; document.getElementById('filter').dispatchEvent(new Event('input'))")
        for _ in 0..<100 where !seen.contains("<td>\(far.home)</td>") {
            usleep(50_000)
            seen = try browser.document()
        }
        #expect(seen.contains("<td>\(far.home)</td>") && seen.contains(">1 of 601 found among all 2000<"))
        try browser.evaluate("document.getElementById('filter').value = ''; document.getElementById('filter').dispatchEvent(new Event('input'))")
        #expect(browser.complaints.isEmpty, "\(browser.complaints)")
        // For a person to look at, and for docs/pictures.
        let pictures = ProcessInfo.processInfo.environment["MAT_PICTURES"]
        for isDark in [false, true] {
            let picture = try browser.picture(isDark: isDark)
            guard let pictures else { continue }
            try #require(Data(base64Encoded: picture)).write(to: URL(filePath: "\(pictures)/view-\(program)-2000\(isDark ? "-dark" : "").png"))
        }
    }

    @Test("Networks beyond the bound are one, conversations count in both directions, and who is registered nowhere here is drawn too")
    func networks() throws {
        var networks = ViewNetworks()
        var names: [String] = []
        for number in 0..<40 {
            let name = ViewNetworks.name(of: try #require(IPAddress("198.18.\(number).7")))
            names.append(name)
            for node in 0...number { networks.add(in: name, isAway: node == 0) }
        }
        #expect(names[3] == "198.18.3.0/24")
        #expect(ViewNetworks.name(of: try #require(IPAddress("2001:db8:1:2::3"))) == "2001:db8:1::/48")
        for (one, other) in [(39, 38), (39, 38), (39, 38), (38, 39), (0, 1)] {
            let takesMore = networks.addConversation(names[one], names[other])
            #expect(takesMore)
        }
        _ = networks.addConversation("203.0.113.0/24", names[39])
        var report = ViewReport(program: "imsd", version: "", title: "", nowMilliseconds: 0, uptimeMilliseconds: 0)
        networks.write(into: &report)
        #expect(report.networksCount == 41 && report.networks.count == ViewReport.networksMax)
        #expect(report.networks.first == .init(name: names[39], nodesCount: 40, awayCount: 1))
        #expect(report.networks.reduce(0) { $0 + $1.nodesCount } == report.surveyedCount && report.surveyedCount == 820)
        #expect(report.traffic.first == .init(between: names[38], and: names[39], conversationsCount: 4))
        #expect(report.traffic.contains(.init(between: "others", and: "others", conversationsCount: 1)))
        #expect(report.traffic.reduce(0) { $0 + $1.conversationsCount } == report.conversationsCount && report.conversationsCount == 6)
    }
}
