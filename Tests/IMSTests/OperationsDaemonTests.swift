import Glibc
import MATControl
import MATRuntime
import MATServer
import MATSignal
import MappingMemory
import Testing

@testable import IMS
@testable import IMSCore

/// imsd as operators treat it: signals, Prometheus, the service manager, the control socket. Loopback only.
@Suite(
    "Operating imsd", .serialized,
    .enabled(if: Daemon.program != nil, "imsd is not beside the test bundle; build it with swift build --product imsd"))
struct OperationsDaemonTests {
    private let directory: TemporaryDirectory
    private let port: UInt16
    private let httpPort: UInt16
    private let issuer: SigningKey

    init() throws {
        directory = try TemporaryDirectory()
        port = try FreePort.find(SOCK_DGRAM)
        httpPort = try FreePort.find(SOCK_STREAM)
        issuer = try key(200)
        try TextFile.replace("\(directory.path)/ims.key", with: KeyFile.write(issuer), mode: 0o600)
    }

    private func configure(_ more: String = "", prefixes: [String] = ["192.0.2.0/24"], port: UInt16? = nil) throws {
        let served = prefixes.map { "  - {prefix: \"\($0)\", mobile-prefixes: [198.51.100.0/24]}" }.joined(separator: "\n")
        let text = """
            control: \(directory.path)/control.sock
            store: \(directory.path)/ims.db
            signing-key: \(directory.path)/ims.key
            listen: {port: \(port ?? self.port)}
            prefixes:
            \(served)
            dns: {resolvers: ["127.0.0.1:1"]}
            \(more)
            """
        try TextFile.replace("\(directory.path)/imsd.yaml", with: text, mode: 0o600)
    }

    private func start(environment: [String] = []) throws -> Daemon {
        let daemon = try Daemon(
            ["--config", "\(directory.path)/imsd.yaml"], log: "\(directory.path)/log", environment: environment)
        try waitUntil("imsd did not start") { (try? control("status"))?["store"]?["isLoading"]?.bool == false }
        return daemon
    }

    private func control(_ command: String, _ arguments: [String: JSONValue] = [:]) throws(ControlError) -> JSONValue {
        try ControlClient.request(JSONValue.self, path: "\(directory.path)/control.sock", command: command, arguments: arguments, daemon: "imsd")
    }

    private var log: String { (try? TextFile.read("\(directory.path)/log", octetsMax: 1 << 24)) ?? "" }

    private func waitUntil(_ failure: Comment, _ isDone: () throws -> Bool) throws {
        for _ in 0..<800 {
            if try isDone() { return }
            usleep(25_000)
        }
        Issue.record("\(failure): \(log)")
    }

    /// Registers the network 192.0.2.16/28 at 198.51.100.32/28, which loopback can do.
    private func network(_ certificate: Certificate, sequence: UInt64, to client: Client) throws -> (code: ResponseCode, record: EnclosedRecord) {
        let locator = Locator(MobileAddress(address("198.51.100.32")), prefixLength: 124)
        let record = MappingRecord(
            hoa: home("192.0.2.16"), prefixLength: 124, sequence: sequence, lifetime: 600, issued: sequence, locators: [locator])
        let enclosed = EnclosedRecord(mapping: try #require(record.signed(with: try key(1))), certificate: .whole(certificate))
        return (try client.ask { .imsUpdate(IMSUpdate(cookie: $0, record: enclosed)) }.code, enclosed)
    }

    private func enrol() throws -> Certificate {
        let answer = try control(
            "enrol", ["hoa": "192.0.2.16", "prefixLength": 28, "publicKey": .string(KeyFile.write(try key(1).publicKey))])
        return try Certificate(octets: try #require(answer["certificate"]?.string.flatMap { Base64.parse($0.utf8) }))
    }

    private func subscribe(_ client: Client) throws {
        let answer = try client.ask { .maQuery(MAQuery(cookie: $0, hoa: home("192.0.2.20"), subscribe: 300)) }
        guard case .maAnswer(let body)? = answer.message?.body else { return #expect(Bool(false), "no MA Answer") }
        #expect(body.subscribe == 300)
    }

    // MARK: Reload

    @Test("An answer that comes late is not taken for that to the next question: what tests of reloads rely on under load")
    func lateAnswer() throws {
        try configure()
        let daemon = try start()
        let client = try Client(port: port)
        let (here, elsewhere) = (home("192.0.2.20"), home("203.0.113.9"))
        let cookie = try #require(try client.ask { .maQuery(MAQuery(cookie: $0, hoa: here)) }.message?.cookie)
        client.send(SignalMessage(sequence: 1, .maQuery(MAQuery(cookie: cookie, hoa: here))).octets)
        #expect(try client.ask { .maQuery(MAQuery(cookie: $0, hoa: elsewhere)) }.code == .notAuthoritative)
        #expect(daemon.kill(SIGTERM) == 0)
    }

    @Test("SIGHUP takes what is new and drops no datagram; what needs a restart is named; a bad file changes nothing")
    func reload() throws {
        try configure()
        let daemon = try start()
        let client = try Client(port: port)
        let query: (Cookie) -> SignalMessage.Body = { .maQuery(MAQuery(cookie: $0, hoa: home("192.0.2.20"))) }
        let cookie = try #require(try client.ask(query).message?.cookie)

        // A window of questions is always on its way while the configuration changes back and forth.
        var (asked, answered, reloads) = (UInt32(0), 0, 0)
        for round in 0..<30 {
            for _ in 0..<32 {
                asked += 1
                client.send(SignalMessage(sequence: asked, query(cookie)).octets)
                if asked % 64 == 16 {
                    try configure("log-level: \(round % 2 == 0 ? "debug" : "info")", prefixes: ["192.0.2.0/24", "203.0.113.0/24"])
                    daemon.signal(SIGHUP)
                    reloads += 1
                }
            }
            for _ in 0..<32 where client.receive(milliseconds: 5000) != nil { answered += 1 }
        }
        #expect(answered == Int(asked), "\(Int(asked) - answered) of \(asked) questions were lost in \(reloads) reloads")
        try waitUntil("the new prefix is not served") { try control("status")["prefixes"]?.array?.count == 2 }
        #expect(try client.ask { .maQuery(MAQuery(cookie: $0, hoa: home("203.0.113.9"))) }.code == .notFound)

        try configure("log-level: info", port: port &+ 1)
        daemon.signal(SIGHUP)
        try waitUntil("what needs a restart is not named") { log.contains("only after a restart: listen") }
        #expect(try client.ask { .maQuery(MAQuery(cookie: $0, hoa: home("203.0.113.9"))) }.code == .notAuthoritative)

        try TextFile.replace("\(directory.path)/imsd.yaml", with: "prefixes: []\n", mode: 0o600)
        daemon.signal(SIGHUP)
        try waitUntil("the mistake is not named") { log.contains("no prefix is served") && log.contains("stays in force") }
        #expect(try client.ask(query).code == .notFound)

        // Keys: the new one signs from now on, the old one's certificates are replaced.
        let newer = try key(201)
        try TextFile.replace("\(directory.path)/new.key", with: KeyFile.write(newer), mode: 0o600)
        let certificate = try enrol()
        try configure()
        let text = try TextFile.read("\(directory.path)/imsd.yaml").replacing("ims.key", with: "new.key")
        try TextFile.replace(
            "\(directory.path)/imsd.yaml", with: text + "\nprevious-keys: [\"\(KeyFile.write(issuer.publicKey))\"]\n", mode: 0o600)
        daemon.signal(SIGHUP)
        try waitUntil("the new key does not sign") {
            let uses = try control("status")["keys"]?.array?.compactMap { $0["use"]?.string } ?? []
            return uses == ["signing", "previous"]
        }
        #expect(certificate.isIssued(by: issuer.publicKey))
        #expect(try enrol().isIssued(by: newer.publicKey))
        #expect(daemon.kill(SIGTERM) == 0)
    }

    @Test("What was issued and registered while the clock was far ahead is taken back by --force, and stays so over a restart")
    func clockWasAhead() throws {
        try configure()
        let ahead = SystemClock.now().wallMilliseconds + 400 * 86_400_000
        let hoa = home("192.0.2.16")
        let wrong = try #require(
            Certificate(
                issuing: hoa, prefixLength: 124, nodeKey: key(1).publicKey, notBefore: ahead, notAfter: ahead + 86_400_000, with: issuer))
        let record = MappingRecord(
            hoa: hoa, prefixLength: 124, sequence: ahead, lifetime: 600, issued: ahead,
            locators: [Locator(MobileAddress(address("198.51.100.32")), prefixLength: 124)])
        let database = try MappingDatabase(path: "\(directory.path)/ims.db")
        let certified = CertifiedMapping(mapping: try #require(record.signed(with: key(1))), certificate: wrong)
        let stored = StoredMapping(certified: certified, source: node("198.51.100.33"), local: address("203.0.113.1"), provenAt: ahead)
        #expect(try database.write([StoreChange(mapping: stored, issued: wrong)]) == [.durable])
        database.close()

        var daemon = try start()
        let client = try Client(port: port)
        var wanted: [String: JSONValue] = [
            "hoa": "192.0.2.16", "prefixLength": 28, "publicKey": .string(KeyFile.write(try key(1).publicKey)),
        ]
        do throws(ControlError) {
            _ = try control("enrol", wanted)
            Issue.record("it was enrolled behind a certificate that nobody believes")
        } catch {
            #expect(error.description.contains("this host's clock says") && error.description.contains("--force"))
        }
        wanted["force"] = true
        let answer = try control("enrol", wanted)
        let certificate = try Certificate(octets: try #require(answer["certificate"]?.string.flatMap { Base64.parse($0.utf8) }))
        let time = SystemClock.now().wallMilliseconds
        #expect(try network(certificate, sequence: time, to: client).code == .ok)
        #expect(daemon.kill(SIGTERM) == 0)
        daemon = try start()
        #expect(try control("show", ["hoa": "192.0.2.20"])["sequence"]?.int == Int64(time))
        #expect(try network(certificate, sequence: time + 1, to: client).code == .ok)
        #expect(try enrol().notBefore <= SystemClock.now().wallMilliseconds)
        #expect(daemon.kill(SIGTERM) == 0)
    }

    // MARK: Drain

    @Test("SIGTERM answers what came, waits for pushes no longer than it may, and ends with 0")
    func drain() throws {
        try configure("drain: 1s")
        let daemon = try start()
        let (node, peer) = (try Client(port: port), try Client(port: port))
        let certificate = try enrol()
        let time = SystemClock.now().wallMilliseconds
        #expect(try network(certificate, sequence: time, to: node).code == .ok)
        try subscribe(peer)
        #expect(try network(certificate, sequence: time + 1, to: node).code == .ok)
        // The push stays unacknowledged.
        try waitUntil("no push") { try control("status")["pushesPending"]?.int == 1 }
        daemon.signal(SIGTERM)
        // It serves while it waits, updates too.
        #expect(try network(certificate, sequence: time + 2, to: node).code == .ok)
        #expect(daemon.wait() == 0)
        #expect(log.contains("stopping: finishing") && log.contains("pushes not acknowledged in time: 1"))
        #expect(access("\(directory.path)/control.sock", F_OK) != 0)

        // What it acknowledged while stopping is there after the restart.
        let again = try start()
        #expect(try control("show", ["hoa": "192.0.2.20"])["sequence"]?.int == Int64(time + 2))
        #expect(again.kill(SIGTERM) == 0)
    }

    @Test("A second SIGTERM ends it at once")
    func secondSignal() throws {
        try configure("drain: 60s")
        let daemon = try start()
        let (node, peer) = (try Client(port: port), try Client(port: port))
        let certificate = try enrol()
        let time = SystemClock.now().wallMilliseconds
        _ = try network(certificate, sequence: time, to: node)
        try subscribe(peer)
        #expect(try network(certificate, sequence: time + 1, to: node).code == .ok)
        let before = SystemClock.now().monotonic
        daemon.signal(SIGTERM)
        try waitUntil("it does not begin to stop") { log.contains("stopping: finishing") }
        #expect(daemon.kill(SIGTERM) == 0)
        #expect(SystemClock.now().monotonic - before < .seconds(30) && log.contains("stopping at once"))
    }

    // MARK: Service manager

    @Test("The service manager hears of start, reload and stop")
    func serviceManager() throws {
        let manager = try NotifySocket(path: "\(directory.path)/notify.sock")
        try configure()
        let daemon = try start(environment: ["NOTIFY_SOCKET=\(directory.path)/notify.sock"])
        #expect(try #require(manager.next()).hasPrefix("READY=1\nSTATUS=serving 1 prefix "))
        daemon.signal(SIGHUP)
        #expect(try #require(manager.next()).hasPrefix("RELOADING=1\nMONOTONIC_USEC="))
        #expect(try #require(manager.next()).hasPrefix("READY=1"))
        #expect(daemon.kill(SIGTERM) == 0)
        #expect(try #require(manager.next()).hasPrefix("STOPPING=1"))
    }

    @Test("The service manager that watches it hears that the loop turns, as long as the process runs")
    func watchdog() throws {
        let manager = try NotifySocket(path: "\(directory.path)/notify.sock")
        try configure()
        let daemon = try start(environment: ["NOTIFY_SOCKET=\(directory.path)/notify.sock", "WATCHDOG_USEC=100000"])
        #expect(try #require(manager.next()).hasPrefix("READY=1"))
        for _ in 0..<3 { #expect(manager.next() == "WATCHDOG=1") }
        #expect(daemon.kill(SIGTERM) == 0)
    }

    // MARK: Metrics

    @Test("Prometheus gets counts, levels and histograms in its format; other requests get their errors")
    func metrics() throws {
        try configure("metrics: {listen: \"127.0.0.1:\(httpPort)\"}")
        let daemon = try start()
        let client = try Client(port: port)
        let certificate = try enrol()
        #expect(try network(certificate, sequence: SystemClock.now().wallMilliseconds, to: client).code == .ok)
        _ = try client.ask { .maQuery(MAQuery(cookie: $0, hoa: home("192.0.2.20"))) }

        let page = try HTTPReply.get("/metrics", port: httpPort)
        #expect(page.status == 200 && page.headers["content-type"] == MetricText.contentType)
        let exposition = try Exposition(page.body)
        #expect(exposition["imsd_answers_total", ["type": "IMS Update Reply", "code": "ok"]] == 1)
        #expect((exposition["imsd_answers_total", ["type": "MA Answer", "code": "ok"]] ?? 0) >= 1)
        #expect(exposition["imsd_mappings"] == 1 && exposition["imsd_prefix_mappings", ["prefix": "192.0.2.0/24"]] == 1)
        #expect(exposition["imsd_update_duration_seconds_count"] == 1 && exposition["imsd_store_batch_changes_sum"] == 2)
        #expect(exposition["imsd_update_duration_seconds_bucket", ["le": "+Inf"]] == 1)
        #expect(exposition["imsd_binding_changes_total", ["reason": "registered"]] == 1)
        #expect((exposition["process_resident_memory_bytes"] ?? 0) > 1_000_000 && (exposition["process_open_fds"] ?? 0) > 3)
        #expect(exposition["imsd_store_available"] == 1 && exposition["imsd_certificates_ending"] == 0)

        // Counters only grow, and the control socket tells the same names.
        _ = try client.ask { .maQuery(MAQuery(cookie: $0, hoa: home("192.0.2.20"))) }
        let later = try Exposition(try #require(try control("metrics")["text"]?.string))
        for (series, value) in exposition.values where exposition.types[series.family] == "counter" {
            #expect((later.values[series] ?? -1) >= value, "\(series)")
        }
        #expect(Set(later.types.keys) == Set(exposition.types.keys))

        // What is no message costs the kernel a look, and imsd nothing; both are told.
        let noise = try LoopbackSocket(peer: port)
        for number in 0..<500 { noise.send([UInt8](repeating: 0x45, count: 20 + number)) }
        _ = try client.ask { .maQuery(MAQuery(cookie: $0, hoa: home("192.0.2.20"))) }
        let noisy = try Exposition(try #require(try control("metrics")["text"]?.string))
        #expect(noisy["imsd_datagrams_refused_total"] == (exposition["imsd_datagrams_refused_total"] ?? 0) + 500)
        #expect((noisy["imsd_datagrams_received_total"] ?? 0) < (later["imsd_datagrams_received_total"] ?? 0) + 20)
        #expect(try HTTPReply.get("/", port: httpPort).status == 404)
        #expect(try HTTPReply.get("/metrics", port: httpPort, method: "POST").status == 405)
        let head = try HTTPReply.get("/metrics", port: httpPort, method: "HEAD")
        #expect(head.status == 200 && head.body.isEmpty)
        // What is no HTTP gets an error or nothing, and harms nobody else.
        #expect(((try? HTTPReply.exchange("rubbish\r\n\r\n", port: httpPort))?.status ?? 400) == 400)
        #expect(try HTTPReply.get("/metrics?x=1", port: httpPort).status == 200)

        // Switched off, it is gone; imsd goes on.
        try configure()
        daemon.signal(SIGHUP)
        try waitUntil("metrics are still there") { (try? HTTPReply.get("/metrics", port: httpPort)) == nil }
        #expect(try control("status")["metrics"] == .null)
        #expect(daemon.kill(SIGTERM) == 0)
    }

    // MARK: The page for people

    @Test("A browser on this host is shown who is where and what happens; by another name, or from elsewhere, nobody is")
    func view() throws {
        try configure("view: {listen: \"127.0.0.1:\(httpPort)\"}")
        let daemon = try start()
        let client = try Client(port: port)
        let certificate = try enrol()
        #expect(try network(certificate, sequence: SystemClock.now().wallMilliseconds, to: client).code == .ok)

        let page = try HTTPReply.get("/", port: httpPort)
        #expect(page.status == 200 && page.headers["content-type"] == "text/html; charset=utf-8")
        #expect(page.headers["content-security-policy"]?.contains("default-src 'none'") == true)
        for name in ["view.css", "view.js"] {
            #expect(page.body.contains("\"\(name)\""))
            #expect(try HTTPReply.get("/\(name)", port: httpPort).status == 200)
        }
        // Nothing comes from elsewhere.
        for path in ["/", "/view.css", "/view.js"] {
            let text = try HTTPReply.get(path, port: httpPort).body.replacing("http://www.w3.org/2000/svg", with: "")
            #expect(!text.contains("http:") && !text.contains("https:"), "\(path)")
        }
        let report = try ControlJSON.decode(ViewReport.self, from: Array(HTTPReply.get("/view.json", port: httpPort).body.utf8))
        #expect(report.program == "imsd" && report.nodesCount == 1)
        let node = try #require(report.nodes.first)
        #expect(node.home == "192.0.2.16/28" && node.state == .registered && node.places == ["198.51.100.32/28"], "\(node)")
        #expect(report.changes.first?.what == "registered" && report.changes.first?.home == node.home)
        #expect(report.figures.contains { $0.title == "Updates" && $0.value >= 1 && $0.kind == .count })

        for (text, count) in [("192.0.2.20", 1), ("198.51.100.3", 1), ("2.16%2F28", 1), ("203.0.113", 0), ("%zz", 1)] {
            let found = try HTTPReply.get("/nodes.json?find=\(text)", port: httpPort)
            let answer = try ControlJSON.decode(ViewReport.Found.self, from: Array(found.body.utf8))
            #expect(found.status == 200 && answer.nodes.count == count && answer.foundCount == count, "\(text): \(found)")
            #expect(answer.isComplete && answer.lookedAtCount == 1)
        }

        func get(_ path: String, host: String) throws -> Int {
            try HTTPReply.exchange("GET \(path) HTTP/1.1\r\nHost: \(host)\r\nConnection: close\r\n\r\n", port: httpPort).status
        }
        for host in ["127.0.0.1:\(httpPort)", "[::1]:\(httpPort)", "localhost:8288"] { #expect(try get("/view.json", host: host) == 200, "\(host)") }
        for host in ["attacker.example", "127.0.0.1.attacker.example", ""] { #expect(try get("/view.json", host: host) == 403, "\(host)") }
        for hosts in ["Host: localhost\r\nHost: attacker.example\r\n", "Host: localhost\r\nHost: localhost\r\n", ""] {
            #expect(try HTTPReply.exchange("GET /view.json HTTP/1.1\r\n\(hosts)Connection: close\r\n\r\n", port: httpPort).status == 400, "\(hosts)")
        }
        // Who only begins to ask keeps nobody out, however many there are.
        let halfOpen = (0..<100).map { _ in HTTPReply.connect(port: httpPort) }
        defer { for descriptor in halfOpen where descriptor >= 0 { close(descriptor) } }
        for descriptor in halfOpen { _ = Glibc.send(descriptor, "GET / HT", 8, Int32(MSG_NOSIGNAL)) }
        for _ in 0..<3 { #expect(try get("/view.json", host: "localhost") == 200) }
        let events = try HTTPReply.read("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n", port: httpPort) {
            $0.split(separator: "data: {").count > 2
        }
        #expect(events.contains("text/event-stream") && events.contains("\"program\":\"imsd\""))
        #expect(daemon.kill(SIGTERM) == 0)

        try configure("view: {listen: \"192.0.2.1:8288\"}")
        #expect(try Daemon(["--config", "\(directory.path)/imsd.yaml", "--check"], log: "\(directory.path)/log").wait() == 78)
        #expect(log.contains("192.0.2.1 can be reached from elsewhere, and the page asks nobody who he is"))
    }

    @Test("A browser draws the page: nodes, changes and figures, live, and what a node says of itself is text")
    func browser() throws {
        try #require(Browser.isInstalled, "chromium is not installed; deploy/install-packages installs what the tests need")
        try configure("view: {listen: \"127.0.0.1:\(httpPort)\"}")
        let daemon = try start()
        let client = try Client(port: port)
        #expect(try network(enrol(), sequence: SystemClock.now().wallMilliseconds, to: client).code == .ok)
        let browser = try Browser("http://127.0.0.1:\(httpPort)/", directory: directory.path)
        // The second event tells rates.
        try waitUntil("the page shows no rates") { try browser.document().contains(">0</b><span>Updates a second<") }
        let seen = try browser.document()
        #expect(seen.contains(#"class="live">live<"#))
        #expect(seen.contains("<td>192.0.2.16/28</td>") && seen.contains(#"title="198.51.100.32/28""#))
        #expect(seen.contains(#"<circle class="node""#) && seen.contains(#"<td class="registered">registered</td>"#))
        #expect(try browser.picture(isDark: false) != browser.picture(isDark: true))
        #expect(browser.complaints.isEmpty, "\(browser.complaints)")
        #expect(daemon.kill(SIGTERM) == 0)
    }

    @Test("An address that is taken is an error at the start, and at a reload leaves all as it was")
    func metricsAddressTaken() throws {
        let taken = try Listener()
        try configure("metrics: {listen: \"127.0.0.1:\(taken.port)\"}")
        #expect(try Daemon(["--config", "\(directory.path)/imsd.yaml"], log: "\(directory.path)/log").wait() == 1)
        #expect(log.contains("metrics: can't listen at 127.0.0.1:\(taken.port)"))
        try configure()
        let daemon = try start()
        try configure("metrics: {listen: \"127.0.0.1:\(taken.port)\"}", prefixes: ["192.0.2.0/24", "203.0.113.0/24"])
        daemon.signal(SIGHUP)
        try waitUntil("the reload is not refused") { log.contains("stays in force") }
        #expect(try control("status")["prefixes"]?.array?.count == 1)
        #expect(daemon.kill(SIGTERM) == 0)
    }

    // MARK: Revocation, export and import over the control socket

    @Test("A revocation is durable when it is answered, pushed to subscribers, and survives kill -9")
    func revoke() throws {
        try configure("log-format: json")
        var daemon = try start()
        let (node, peer) = (try Client(port: port), try Client(port: port))
        let certificate = try enrol()
        let time = SystemClock.now().wallMilliseconds
        #expect(try network(certificate, sequence: time, to: node).code == .ok)
        try subscribe(peer)
        let answer = try control("revoke", ["prefix": "192.0.2.16/28"])
        #expect(answer["revoked"]?.array?.compactMap(\.string) == ["192.0.2.16/28"])
        var pushed: SignedMapping?
        while pushed == nil, let octets = peer.receive(milliseconds: 5000) {
            for case .message(let message, _) in SignalDatagram.decode(octets) {
                if case .maNotify(let notify) = message.body { pushed = notify.record.mapping }
            }
        }
        #expect(pushed?.record.isWithdrawal == true)
        #expect(daemon.kill(SIGKILL) == -SIGKILL)
        daemon = try start()
        #expect(try network(certificate, sequence: time + 1, to: node).code == .authenticationFailed)
        let shown = try control("show", ["hoa": "192.0.2.20"])
        #expect(shown["isRevoked"]?.bool == true && shown["updateSource"] == nil)
        #expect(try control("list", ["state": "revoked"])["mappings"]?.array?.count == 1)
        #expect(try control("list", ["state": "registered"])["mappings"]?.array?.isEmpty == true)
        #expect(try control("revoke", ["prefix": "192.0.2.16/28"])["already"]?.array?.count == 1)
        // Once the mapping is out of the way, the HoA can be given to another key.
        #expect(try network(try enrol(), sequence: time + 2, to: node).code == .ok)

        // All before now, but not what is younger.
        let all = try control("revoke", ["before": .number(SystemClock.now().wallMilliseconds + 1000)])
        #expect(all["revoked"]?.array?.compactMap(\.string) == ["192.0.2.16/28"])
        #expect(try control("revoke", ["before": .number(time)])["revoked"]?.array?.isEmpty == true)
        #expect(throws: ControlError.self) { try control("revoke", ["certificate": "0000000000000000"]) }
        #expect(daemon.kill(SIGTERM) == 0)

        // Every line of the log is an object, and the changes are among them with all that a program may ask.
        let lines = try log.split(separator: "\n").map { try JSONValue.parse($0.utf8) }
        let registered = try #require(lines.first { $0["metadata"]?["reason"]?.string == "registered" })
        #expect(registered["level"]?.string == "info" && registered["metadata"]?["hoa"]?.string == "192.0.2.16/28")
        #expect(registered["metadata"]?["after"]?.string == "198.51.100.32/28" && registered["metadata"]?["sequence"]?.string == "\(time)")
        #expect(registered["metadata"]?["source"]?.string?.hasPrefix("127.0.0.1:") == true)
        #expect(lines.contains { $0["metadata"]?["reason"]?.string == "revoked" })
    }
}
