import Foundation
import Glibc
import Testing

/// What an operator is told: of conversations, of a whole node, and after a wrong turn; with real daemons, a real DNS and real sockets.
///
/// ```
///   mn ---- wlan0 ---- r ---- cn (a peer), plain (a host without MAT), ns, resolver, ims1, ims2
/// ```
@Suite("What an operator sees", .serialized, .lab("oper"))
struct OperatorTests {
    func mat(_ lab: Lab, _ host: String, _ arguments: String) throws -> Lab.Output {
        try lab.shell(host, "mat \(arguments) --control \(lab.control(host))")
    }

    func json(_ lab: Lab, _ host: String, _ arguments: String) throws -> [String: Any] {
        let output = try lab.shell(host, "mat \(arguments) --json --control \(lab.control(host)) 2>&1")
        return try #require(try JSONSerialization.jsonObject(with: Data(output.text.utf8)) as? [String: Any], "\(output.text)")
    }

    /// A TCP connection from a host, by what its listener is reached at, from an address of its own if one is named.
    private func connect(_ lab: Lab, _ near: String, _ far: String, _ address: String, port: UInt16, from own: String? = nil) throws
        -> [HostSocket]
    {
        let listener = try HostSocket(lab, far, SOCK_STREAM, isIPv4: !address.contains(":"))
        try listener.bindAll(port: port)
        try listener.listen()
        let client = try HostSocket(lab, near, SOCK_STREAM, isIPv4: !address.contains(":"))
        if let own { try client.bind(own, port: 0) }
        try client.connect(address, port: port)
        return [client, try listener.accept(), listener]
    }

    @Test("On a host of the lab `mat` asks that host's daemons, without being told where; on one without any it asks nobody else's")
    func exec() throws {
        let lab = try Lab.shared
        #expect(try lab.lab("exec", "mn", "mat", "status").contains("192.0.2.10"))
        #expect(try lab.lab("exec", "cn", "mat", "status").contains("198.51.100.20"))
        #expect(try lab.lab("exec", "cn", "mat", "why", "192.0.2.10").contains("192.0.2.10"))
        #expect(try lab.lab("exec", "ims1", "mat", "ims", "list").contains("192.0.2.10"))
        for (host, command, absent) in [("plain", ["status"], "matd"), ("ims1", ["status"], "matd"), ("mn", ["ims", "status"], "imsd")] {
            let output = try lab.attempt(["exec", host, "mat"] + command)
            #expect(output.status == 2 && output.text.contains("\(absent) isn't running (no socket at /run/\(lab.name)/\(host)/"), "\(output.text)")
        }
        // The configuration too.
        #expect(try lab.attempt(["exec", "mn", "mat", "doctor"]).text.contains("/run/\(lab.name)/mn/matd.yaml"))
    }

    @Test(
        "mat explain says of a peer's connection that it survives, and of plain ones why they do not: a plain host, and a socket at a mobile address")
    func explain() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        for (peer, plain) in [("198.51.100.20", "203.0.113.200"), ("2001:db8:20::20", "2001:db8:99::200")] {
            let bracketed = peer.contains(":") ? "[\(peer)]" : peer
            let mapped = try connect(lab, "mn", "cn", peer, port: 7000)
            let good = try mat(lab, "mn", "explain \(bracketed):7000")
            #expect(good.status == 0 && good.text.contains("survives  yes: it goes on when either end moves"), "\(good.text)")
            #expect(good.text.contains("path      direct to its home address from") && good.text.contains("(wlan0)"))
            // By the other end too, whose `traffic` lists the home addresses of mn.
            let other = try mat(lab, "cn", "explain \(peer.contains(":") ? "2001:db8:10::10" : "192.0.2.10")")
            #expect(other.status == 0 && other.text.contains("path      direct to"), "\(other.text)")
            let beside = try connect(lab, "mn", "plain", plain, port: 7001)
            let bad = try mat(lab, "mn", "explain \(plain)")
            #expect(bad.status == 1 && bad.text.contains("the DNS names no mapping server for \(plain): it is a plain host"), "\(bad.text)")
            #expect(bad.text.contains("survives  no") && bad.text.contains("gateway"))
            withExtendedLifetime((mapped, beside)) {}
        }
        let own = try #require(
            (try lab.status("mn")["locators"] as? [[String: Any]])?.compactMap { $0["address"] as? String }.first { !$0.contains(":") })
        let bound = try connect(lab, "mn", "cn", "198.51.100.20", port: 7002, from: own)
        let line = try lab.shell("mn", "ss -tnH dst 198.51.100.20 dport 7002").text.trimmingCharacters(in: .whitespacesAndNewlines)
        let output = try lab.shell("mn", "mat explain '\(line)' --control \(lab.control("mn"))")
        #expect(
            output.status == 1 && output.text.contains("its own address is \(own) of wlan0, which is not a home address"), "\(line)\n\(output.text)")
        // cn listens to nobody but to home addresses.
        #expect(try json(lab, "cn", "explain 203.0.113.200")["conversations"] as? [[String: Any]] != nil)
        #expect(try mat(lab, "cn", "explain 203.0.113.200").text.contains("`traffic` in matd.yaml does not select it"))
        withExtendedLifetime(bound) {}
    }

    @Test("What --json prints of real daemons is what the schemas in docs/json say, key by key")
    func schemas() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        #expect(try lab.on("mn", "ping", "-c", "1", "-W", "5", "198.51.100.20").status == 0)
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let (key, files) = ("/run/\(lab.name)/mn/json.key", "/run/\(lab.name)/mn/json")
        let (node, server) = (lab.control("mn"), lab.control("ims1"))
        try FileManager.default.createDirectory(atPath: files, withIntermediateDirectories: true)
        let enrolled = "enrol 192.0.2.99 --force --public-key $(mat keygen --out \(key) --force)"
        var count = 0
        for (host, control, commands) in [
            (
                "mn", node,
                [
                    "status", "peers", "handover --auto", "trace 198.51.100.20", "why 198.51.100.20", "history", "explain 198.51.100.20",
                    "explain 203.0.113.200", "ps",
                    "peers --watch --interval 0.2 & sleep 0.7; kill $!",
                ]
            ), ("mn", "", ["lookup 198.51.100.20", "lookup 203.0.113.200"]),
            ("mn", node, ["doctor --node --node-config /run/\(lab.name)/mn/matd.yaml"]),
            (
                "ims1", server,
                [
                    "ims status", "ims list", "ims list --all", "ims show 192.0.2.10", enrolled, "ims enrolled", "ims revoke 192.0.2.99",
                    "ims token create --prefix 192.0.2.0/24 --host 203.0.113.132", "ims token list", "ims metrics",
                ]
            ),
        ] {
            for command in commands {
                count += 1
                let parts = command.split(separator: "&", maxSplits: 1).map(String.init)
                let rest = parts.count > 1 ? " & \(parts[1])" : ""
                let option = control.isEmpty ? "" : "--control \(control)"
                let output = try lab.shell(host, "mat \(parts[0]) --json \(option) > \(files)/\(count)\(rest); true", seconds: 60)
                let faults = try lab.shell(host, "\(root.path)/deploy/json-check \(files)/\(count) 2>&1")
                #expect(faults.status == 0, "mat \(command): \(faults.text)\(output.text)")
            }
        }
    }

    @Test("mat explain of a process tells of each of its sockets, and what is wrong with a number that is none, is another's, or is elsewhere")
    func process() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        let listener = try HostSocket(lab, "cn", SOCK_STREAM, isIPv4: true)
        try listener.bindAll(port: 7010)
        try listener.listen()
        let program = try lab.start("mn", "/bin/bash", "-c", "exec 3<>/dev/tcp/198.51.100.20/7010; echo $$; exec sleep 60")
        try lab.wait("the program is connected") { program.text.hasSuffix("\n") }
        let id = try #require(Int32(program.text.trimmingCharacters(in: .whitespacesAndNewlines)))
        let report = try json(lab, "mn", "explain \(id)")
        #expect((report["process"] as? [String: Any])?["name"] as? String == "sleep")
        let conversations = try #require(report["conversations"] as? [[String: Any]])
        #expect(conversations.count == 1 && (conversations[0]["traffic"] as? [String: Any])?["survives"] as? String == "yes", "\(report)")
        #expect((conversations[0]["socket"] as? [String: Any])?["remote"] as? String == "198.51.100.20:7010")
        // From another network namespace, and as somebody who may not look.
        let elsewhere = try lab.shell("mn2", "mat explain \(id) --control \(lab.control("mn")) 2>&1")
        #expect(elsewhere.status == 1 && elsewhere.text.contains("is in another network namespace"), "\(elsewhere.text)")
        let refused = try lab.shell("mn", "setpriv --reuid 65534 --clear-groups mat explain \(id) --control \(lab.control("mn")) 2>&1")
        #expect(refused.status == 1 && refused.text.contains("run this as root"), "\(refused.text)")
        program.terminate()
        _ = try program.wait(seconds: 5)
        let gone = try lab.shell("mn", "mat explain \(id) --control \(lab.control("mn")) 2>&1")
        #expect(gone.status == 1 && gone.text.contains("there is no process \(id)"), "\(gone.text)")
    }

    @Test("mat why lists flows of datagrams beside the mapping, though no connected socket shows them, and each once")
    func plainDatagrams() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        #expect(try lab.on("mn", "ping", "-c", "1", "-W", "5", "198.51.100.20").status == 0)
        let peer = try #require(try lab.peers("mn").first { $0["home"] as? String == "198.51.100.20" })
        let own = try #require(peer["ownLocator"] as? String)
        // The first is over when it is asked about; the other is connected, and waits.
        let sent = try lab.shell("mn", "echo hello | socat -t 0.2 - UDP4-DATAGRAM:198.51.100.20:7020,bind=\(own):7021 2>&1")
        #expect(sent.status == 0, "\(sent.text)")
        let connected = try lab.start("mn", "/bin/bash", "-c", "(echo hello; sleep 60) | socat - UDP4:198.51.100.20:7020,bind=\(own):7022")
        defer { connected.terminate() }
        var flows: [[String: Any]] = []
        try lab.wait("both are told of: \(flows)") {
            flows = try json(lab, "mn", "why 198.51.100.20")["plain"] as? [[String: Any]] ?? []
            return Set(flows.compactMap { $0["local"] as? String }) == ["\(own):7021", "\(own):7022"]
        }
        #expect(flows.count == 2 && flows.allSatisfy { $0["transport"] as? String == "udp" && $0["remote"] as? String == "198.51.100.20:7020" })
        let text = try lab.on("mn", "mat", "why", "198.51.100.20", "--control", lab.control("mn")).text
        #expect(text.contains("2 conversations with it are plain, and would not survive a move:"), "\(text)")
        #expect(text.contains("which is not a home address") && text.contains("(datagrams that passed in the last 3 minutes)"), "\(text)")
    }

    /// What a program with a terminal of this size prints, and how it ends, after a key that is pressed when it has drawn some pictures.
    private func onTerminal(_ lab: Lab, _ columns: Int, _ command: String, key: UInt8, shows words: String) throws -> Lab.Output {
        let keyboard = "/run/\(lab.name)/mn/keyboard"
        unlink(keyboard)
        guard mkfifo(keyboard, 0o600) == 0, let keys = FileHandle(forUpdatingAtPath: keyboard) else { throw HostSocket.failed("make \(keyboard)") }
        // exec: Ctrl-C reaches a shell that waits as well, and dash then ends with 130 whatever its program ended with.
        let line = "stty cols \(columns) rows 30; exec \(command) --control \(lab.control("mn"))"
        let program = try lab.start("mn", "/bin/bash", "-c", "TERM=xterm script -qfec '\(line)' /dev/null <\(keyboard)")
        try lab.wait("\(command) draws", seconds: 30) {
            let frames = program.text.components(separatedBy: "\u{1B}[H")
            return frames.count > 3 && frames.last?.contains(words) == true && frames.last?.contains("\u{1B}[J") == true
        }
        try keys.write(contentsOf: Data([key]))
        return try program.wait(seconds: 15)
    }

    @Test(
        "mat top and --watch redraw in place at 80 and 200 columns, show the peer and its traffic, and leave the terminal as it was at q and Ctrl-C")
    func live() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        let traffic = try lab.start("mn", "ping", "-i", "0.05", "-s", "1000", "198.51.100.20")
        defer { traffic.terminate() }
        try lab.wait("cn is a peer") { try lab.peers("mn").contains { $0["home"] as? String == "198.51.100.20" } }
        for (columns, command, key) in [
            (80, "mat top --interval 0.4", UInt8(ascii: "q")), (200, "mat top --interval 0.4", 3), (80, "mat peers --watch --interval 0.5", 3),
        ] {
            let output = try onTerminal(lab, columns, command, key: key, shows: "198.51.100.20")
            #expect(output.status == 0, "\(command): \(output.text)")
            #expect(output.text.contains("\u{1B}[?1049h") && output.text.hasSuffix("\u{1B}[?25h\u{1B}[?1049l"), "\(output.text.debugDescription)")
            let frames = output.text.components(separatedBy: "\u{1B}[H")
            #expect(frames.count >= 3)
            let last = try #require(frames.last?.components(separatedBy: "\u{1B}[J").first)
            let lines = last.replacing(/\u{1B}\[[0-9;]*[mK]/, with: "").components(separatedBy: "\r\n")
            #expect(lines.allSatisfy { $0.count <= columns }, "\(lines)")
            #expect(lines.contains { $0.contains("198.51.100.20") && (columns == 80 && command.contains("top") || $0.contains("wlan0")) }, "\(lines)")
            // 20 of 1028 octets a second, each way.
            if command.contains("top") { #expect(lines.contains { $0.contains("198.51.100.20") && $0.contains("kbit/s") }, "\(lines)") }
        }
        // In a pipe: reports one after the other, each a line with --json; and nothing that could only be drawn.
        let piped = try lab.start("mn", "mat", "peers", "--watch", "--interval", "0.3", "--json", "--control", lab.control("mn"))
        try lab.wait("two reports in a pipe", seconds: 30) { piped.text.split(separator: "\n").count >= 2 }
        let whole = try piped.interrupt()
        let reports = whole.text.split(separator: "\n")
        #expect(whole.status == 0 && reports.allSatisfy { $0.hasPrefix("{") && $0.hasSuffix("}") }, "\(whole.text)")
        let refused = try lab.shell("mn", "mat top --control \(lab.control("mn")) 2>&1")
        #expect(refused.status == 1 && refused.text.contains("draws on a terminal"), "\(refused.text)")
    }

    @Test(
        "mat bugreport has what an engineer asks for, of node and mapping server, and no private key, token, password or RADIUS secret, wherever they stand"
    )
    func bugreport() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        #expect(try lab.on("mn", "ping", "-c", "1", "198.51.100.20").status == 0)
        let (node, server) = ("/run/\(lab.name)/mn", "/run/\(lab.name)/ims1")
        let token = try lab.shell("ims1", "mat ims token create --prefix 192.0.2.0/24 --host 203.0.113.132 --control \(server)/control.sock").text
            .split(separator: "\n").map(String.init).first { $0.contains("mat-join:") }
        let secrets = [
            "node.key": try #require(
                try String(contentsOfFile: "\(node)/node.key", encoding: .utf8).split(separator: "\n").last { !$0.hasPrefix("#") }.map(String.init)),
            "RADIUS": "radius-shared-41f0", "etcd": "etcd-password-77", "token": try #require(token).trimmingCharacters(in: .whitespaces),
            "comment": "left-in-a-comment",
        ]
        // As careless as people are: in the configuration, in comments, and in the log.
        let scratch = "\(node)/careless"
        try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true)
        for (name, secret) in [("radius.secret", secrets["RADIUS"]), ("etcd.password", secrets["etcd"])] {
            try "\(secret ?? "")\n".write(toFile: "\(scratch)/\(name)", atomically: false, encoding: .utf8)
        }
        let careless = """
            # the key is left-in-a-comment
            servers:
              - {address: 10.0.0.5, secret-file: \(scratch)/radius.secret}
            etcd:
              user: ims
              password-file: \(scratch)/etcd.password
              password: etcd-password-77
            """
        try careless.write(toFile: "\(scratch)/imsd.yaml", atomically: false, encoding: .utf8)
        let log = secrets.values.joined(separator: "\nsomebody logged ")
        try log.replacing("left-in-a-comment", with: "nothing").write(toFile: "\(scratch)/matd.log", atomically: false, encoding: .utf8)

        let file = "\(scratch)/report.txt"
        let output = try lab.shell(
            "mn",
            "mat bugreport --out \(file) --node-config \(node)/matd.yaml --control \(lab.control("mn")) --ims-config \(scratch)/imsd.yaml --ims-control \(server)/control.sock --log \(scratch)/matd.log",
            seconds: 60)
        #expect(output.status == 0 && output.text.contains("read it before you send it"), "\(output.text)")
        let text = try String(contentsOfFile: file, encoding: .utf8)
        #expect((try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int) == 0o600)
        for part in [
            "nameserver 203.0.113.131", "mat doctor", "mat status --json", "mat history", "mat why", "\(node)/matd.yaml", "nft -t list ruleset",
            "ip -4 rule", "ip -6 route show table all",
            "mat ims status --json", "Linux", "198.51.100.20", "chain translate", "lookup 6288", "somebody logged",
            "secret-file: \(scratch)/radius.secret",
        ] {
            let isThere = text.contains(part)
            #expect(isThere, "\(part) is missing")
        }
        for (name, secret) in secrets {
            for word in secret.split(separator: " ") where !word.hasSuffix(":") {
                // The report is long.
                let isThere = text.contains(word)
                #expect(!isThere, "\(name) is in the report")
            }
        }
    }
}
