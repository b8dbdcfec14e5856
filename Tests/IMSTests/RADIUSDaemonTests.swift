import Glibc
import MATRuntime
import MATSignal
import Testing

@testable import IMS

/// FreeRADIUS with users and a file of what was accounted, in a directory of its own.
private final class FreeRADIUS {
    static let program = "/usr/sbin/freeradius"
    static var isInstalled: Bool { access(program, X_OK) == 0 }

    let port: UInt16
    private let directory: String
    private var pid: pid_t = 0

    /// - Parameter port: of questions; accounts go to the next one.
    init(_ name: String, in base: TemporaryDirectory, port: UInt16, secret: String = "testing123") throws {
        self.port = port
        directory = base.path
        self.name = name
        let text = """
            prefix = /usr
            name = freeradius
            logdir = DIR
            radacctdir = DIR
            run_dir = DIR
            libdir = /usr/lib/freeradius
            max_request_time = 5
            cleanup_delay = 1
            max_requests = 4096
            proxy_requests = no
            log {
              destination = files
              file = DIR/NAME.log
            }
            security {
              max_attributes = 200
              reject_delay = 0
              status_server = no
            }
            client node {
              ipaddr = 127.0.0.1
              secret = SECRET
              require_message_authenticator = yes
            }
            thread pool {
              start_servers = 1
              max_servers = 4
              min_spare_servers = 1
              max_spare_servers = 3
              max_requests_per_server = 0
            }
            modules {
              files {
                filename = DIR/users
              }
              detail {
                filename = DIR/NAME.detail
                permissions = 0600
              }
              pap {
              }
            }
            server default {
              listen {
                type = auth
                ipaddr = 127.0.0.1
                port = PORT
              }
              listen {
                type = acct
                ipaddr = 127.0.0.1
                port = NEXT
              }
              authorize {
                files
                pap
              }
              authenticate {
                Auth-Type PAP {
                  pap
                }
              }
              post-auth {
                update reply {
                  Message-Authenticator := 0x00
                }
                Post-Auth-Type REJECT {
                  update reply {
                    Message-Authenticator := 0x00
                  }
                }
              }
              accounting {
                detail
              }
            }
            """
        try TextFile.replace(
            "\(directory)/radiusd.conf.\(name)",
            with: text.replacingAll("DIR", with: directory).replacingAll("NAME", with: name).replacingAll("SECRET", with: secret)
                .replacingAll("PORT", with: "\(port)").replacingAll("NEXT", with: "\(port + 1)"), mode: 0o600)
    }

    private let name: String

    /// What a user file says of tokens.
    static func setUsers(_ text: String, in base: TemporaryDirectory) throws {
        try TextFile.replace("\(base.path)/users", with: text, mode: 0o600)
    }

    func start() throws {
        try TextFile.replace("\(directory)/\(name).conf", with: try TextFile.read("\(directory)/radiusd.conf.\(name)"), mode: 0o600)
        let words = [Self.program, "-f", "-d", directory, "-D", "/usr/share/freeradius", "-n", name]
        var strings: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for string in strings { free(string) } }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "\(directory)/\(name).out", O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO)
        try #require(posix_spawn(&pid, Self.program, &actions, nil, &strings, environ) == 0)
        let isReady = eventually(20) { self.log.contains("Ready to process requests") }
        try #require(isReady, "FreeRADIUS does not start: \(log)")
    }

    func end() {
        guard pid > 0 else { return }
        kill(pid, SIGKILL)
        var status: Int32 = 0
        waitpid(pid, &status, 0)
        pid = 0
        // What it says when it is there again is looked for.
        unlink("\(directory)/\(name).log")
    }

    deinit { end() }

    var log: String {
        ((try? TextFile.read("\(directory)/\(name).log", octetsMax: 1 << 24)) ?? "") + ((try? TextFile.read("\(directory)/\(name).out")) ?? "")
    }

    /// What was accounted, a dictionary for each.
    var accounts: [[String: String]] {
        var result: [[String: String]] = []
        for line in ((try? TextFile.read("\(directory)/\(name).detail", octetsMax: 1 << 24)) ?? "").split(separator: "\n") {
            guard line.hasPrefix("\t") else {
                result.append([:])
                continue
            }
            let halves = line.dropFirst().split(separator: "=", maxSplits: 1).map { $0.filter { $0 != " " && $0 != "\"" } }
            if halves.count == 2, !result.isEmpty { result[result.count - 1][halves[0]] = halves[1] }
        }
        return result.filter { !$0.isEmpty }
    }

    func accounts(_ status: String) -> [[String: String]] { accounts.filter { $0["Acct-Status-Type"] == status } }
}

@Suite(
    "Joins that RADIUS has a word in", .serialized,
    .enabled(
        if: Daemon.program != nil && FreeRADIUS.isInstalled && getuid() == 0,
        "needs imsd beside the test bundle, FreeRADIUS (deploy/install-packages) and root"))
struct RADIUSDaemonTests {
    private static func configuration(_ ports: [UInt16], _ further: String = "") -> String {
        let servers = ports.map { "{address: 127.0.0.1, port: \($0), accounting-port: \($0 + 1), secret-file: DIRECTORY/radius.secret}" }
        return """
            radius:
              - prefixes: [192.0.2.0/25]
                servers: [\(servers.joined(separator: ", "))]
                timeout: 200ms
                nas-identifier: ims1
            \(further)
            """
    }

    private func host(_ ports: [UInt16], _ further: String = "", secret: String = "testing123\n") throws -> JoinHost {
        let host = try JoinHost(Self.configuration(ports, further))
        try TextFile.replace("\(host.directory.path)/radius.secret", with: secret, mode: 0o600)
        try host.start()
        return host
    }

    private static func freePorts() -> UInt16 { UInt16.random(in: 10_000...15_000) * 2 }

    /// As a node would: again after "later".
    private func joinInTime(_ host: JoinHost, _ seed: UInt8, _ token: JoinToken, _ wanted: String? = nil) throws -> JoinReply {
        for _ in 0..<40 {
            let reply = try host.join(seed, token, wanted: wanted)
            if reply.code != .tryLater { return reply }
            usleep(200_000)
        }
        return try host.join(seed, token, wanted: wanted)
    }

    @Test(
        "A token that RADIUS accepts gives an address for as long as it says, one that it rejects gives its reason, and other prefixes are none of its business"
    )
    func asked() throws {
        let port = Self.freePorts()
        let host = try host([port])
        let good = try host.makeToken(["192.0.2.0/26"])
        let bad = try host.makeToken(["192.0.2.0/26"])
        let unknown = try host.makeToken(["192.0.2.0/26"])
        let elsewhere = try host.makeToken(["192.0.2.128/26", "2001:db8:10::/48"])
        try FreeRADIUS.setUsers(
            "\(good.id) Cleartext-Password := \"\(good.id)\"\n\tSession-Timeout = 7200\n\n\(bad.id) Auth-Type := Reject\n\tReply-Message = \"not today\"\n",
            in: host.directory)
        let radius = try FreeRADIUS("radius", in: host.directory, port: port)
        try radius.start()
        let granted = try #require(try host.join(1, good).granted)
        #expect(granted.lifetime == 7200)
        #expect(try host.join(1, good).granted?.certificate == granted.certificate)
        let refused = try host.join(2, bad)
        #expect(refused.code == .refused && refused.text == "the RADIUS server refuses it: not today")
        #expect(try host.join(2, unknown).code == .refused)
        #expect(try host.join(3, elsewhere).code == .ok && host.join(3, elsewhere, wanted: "2000::/3").code == .ok)
        #expect(host.log.contains("refused Join of key") && host.log.contains("not today"))
        // The beginning has been told, with what tells it from others.
        #expect(eventually { radius.accounts("Start").count == 1 }, "\(radius.accounts)")
        let start = radius.accounts("Start").first ?? [:]
        #expect(start["User-Name"] == "\(good.id)" && start["Framed-IP-Address"] == "\(granted.hoa)" && start["NAS-Identifier"] == "ims1")
        #expect(start["Calling-Station-Id"] == "\(TokenID(rawValue: try key(1).publicKey.id))")
        // Given back: its end, under the same name, with the time it took.
        #expect(try host.giveBack(granted, 1, good).code == .ok)
        #expect(eventually { radius.accounts("Stop").count == 1 }, "\(radius.accounts)")
        let stop = radius.accounts("Stop").first ?? [:]
        #expect(
            stop["Acct-Session-Id"] == start["Acct-Session-Id"] && stop["Acct-Terminate-Cause"] == "User-Request" && stop["Acct-Session-Time"] != nil)
        let page = try host.control("metrics")["text"]?.string ?? ""
        let own = page.split(separator: "\n").filter { $0.hasPrefix("imsd_radius") || $0.hasPrefix("imsd_accounts") }.joined(separator: "\n")
        #expect(own.contains("imsd_radius_answers_total{answer=\"accepted\"} 1") && own.contains("imsd_accounts_waiting 0"), "\(own)")
        #expect(radius.accounts.count == 2)
    }

    @Test("With RADIUS down nodes come later and queries go on; accounts survive that and imsd's death, and are told once it is there")
    func down() throws {
        let port = Self.freePorts()
        let host = try host([port])
        let token = try host.makeToken(["192.0.2.0/26"])
        try FreeRADIUS.setUsers("DEFAULT Auth-Type := Accept\n", in: host.directory)
        let radius = try FreeRADIUS("radius", in: host.directory, port: port)
        let refused = try host.join(1, token)
        #expect(refused.code == .tryLater && refused.lifetime == 5, "\(refused.code)")
        #expect(host.log.contains("127.0.0.1:\(port) does not answer") && host.log.contains("no RADIUS server answers"))
        #expect(try host.control("enrolled")["homes"]?.array?.isEmpty == true)
        try radius.start()
        let granted = try #require(try joinInTime(host, 1, token).granted)
        #expect(eventually { radius.accounts("Start").count == 1 })
        radius.end()
        // Its end is told to nobody, nor is it after a kill, until there is somebody again.
        #expect(try host.giveBack(granted, 1, token).code == .ok)
        host.end(SIGKILL)
        try host.start()
        #expect(eventually { host.log.contains("accounts that no RADIUS server has yet: 1") })
        try radius.start()
        #expect(eventually(70) { radius.accounts("Stop").count == 1 }, "\(radius.accounts)")
        #expect(eventually { (try? host.control("metrics"))?["text"]?.string?.contains("imsd_accounts_waiting 0") == true })
        func timesOwed() -> Int { host.log.components(separatedBy: "accounts that no RADIUS server has").count }
        let before = timesOwed()
        host.end(SIGKILL)
        try host.start()
        #expect(timesOwed() == before)
    }

    @Test("Where the first server is down the second one answers, and the first is asked again when it is back")
    func failOver() throws {
        let port = Self.freePorts()
        let host = try host([port, port + 2])
        let token = try host.makeToken(["192.0.2.0/26"])
        try FreeRADIUS.setUsers("DEFAULT Auth-Type := Accept\n", in: host.directory)
        let second = try FreeRADIUS("second", in: host.directory, port: port + 2)
        try second.start()
        #expect(try joinInTime(host, 1, token).code == .ok)
        #expect(eventually(30) { second.accounts("Start").count == 1 })
        // From now on nobody waits for the first.
        let began = SystemClock.now().monotonic
        for seed in 2...10 { #expect(try joinInTime(host, UInt8(seed), token).code == .ok) }
        #expect(SystemClock.now().monotonic - began < .seconds(15))
        #expect(eventually(30) { second.accounts("Start").count == 10 }, "\(second.accounts.count)")
    }

    @Test("A secret that is not the server's, and answers without Message-Authenticator, grant nothing, and the log says why")
    func distrust() throws {
        let port = Self.freePorts()
        let host = try host([port], secret: "another\n")
        let token = try host.makeToken(["192.0.2.0/26"])
        try FreeRADIUS.setUsers("DEFAULT Auth-Type := Accept\n", in: host.directory)
        let radius = try FreeRADIUS("radius", in: host.directory, port: port)
        try radius.start()
        // FreeRADIUS drops what is not signed with its secret.
        #expect(try host.join(1, token).code == .tryLater)
        // Read anew on SIGHUP.
        try TextFile.replace("\(host.directory.path)/radius.secret", with: "testing123\n", mode: 0o600)
        host.signal(SIGHUP)
        #expect(eventually { host.log.contains("the configuration is reloaded") })
        #expect(try joinInTime(host, 1, token).code == .ok)
        // A server of before 2024 that says nothing of the kind.
        radius.end()
        let file = "\(host.directory.path)/radiusd.conf.radius"
        try TextFile.replace(
            file, with: try TextFile.read(file).replacingAll("Message-Authenticator := 0x00", with: "Session-Timeout := 900"), mode: 0o600)
        try radius.start()
        #expect(try host.join(2, token).code == .tryLater)
        #expect(host.log.contains("it has no Message-Authenticator"))
    }

    @Test("Mistakes in the configuration are said with what to do")
    func mistakes() throws {
        func problems(_ radius: String) -> String {
            do {
                _ = try IMSConfiguration(
                    parsing: "public-keys: [\(KeyFile.write(try key(1).publicKey))]\nprefixes: [{prefix: 192.0.2.0/24}]\nradius:\n\(radius)\n",
                    file: "imsd.yaml")
                return ""
            } catch { return "\(error)" }
        }
        let server = "servers: [{address: 192.0.2.250, secret-file: /etc/imsd/radius.secret}]"
        #expect(problems("  - prefixes: [192.0.2.0/25]\n    \(server)") == "")
        for (text, expected) in [
            ("  - prefixes: [192.0.2.0/25]", "no RADIUS server is named"), ("  - prefixes: [198.51.100.0/24]\n    \(server)", "is not served here"),
            ("  - \(server)", "prefixes"), ("  - prefixes: [192.0.2.0/25]\n    servers: [{address: 192.0.2.250}]", "secret-file"),
            ("  - prefixes: [192.0.2.0/25]\n    \(server)\n    authorise: no\n    accounting: no", "neither"),
            ("  - prefixes: [192.0.2.0/25]\n    \(server)\n  - prefixes: [192.0.2.0/26]\n    \(server)", "overlaps"),
            ("  - prefixes: [192.0.2.0/25]\n    \(server)\n    interim: 5s", "out of range"),
        ] { #expect(problems(text).contains(expected), "\(text): \(problems(text))") }
    }
}
