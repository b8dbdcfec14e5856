import Foundation
import Testing

/// A plain host becomes a node with one command, and stops being one with another; real daemons, both families.
@Suite("Joining in network namespaces", .serialized, .lab("join"))
struct JoiningTests {
    static let cn = ["198.51.100.20", "2001:db8:20::20"]

    private func ims(_ lab: Lab, _ arguments: String...) throws -> Lab.Output {
        let command = ["mat", "ims"] + arguments + ["--control", lab.control("ims1")]
        return try lab.shell("ims1", command.joined(separator: " "))
    }

    /// Runs what `mat join` wrote, which no unit does here, and waits until it is registered.
    private func startAgent(_ lab: Lab, on host: String, in directory: String) throws -> (agent: Background, control: String) {
        let configuration = "\(directory)/matd.yaml"
        // Where the lab's own agents have their sockets.
        let control = "\(directory)/control.sock"
        try
            (String(contentsOfFile: configuration, encoding: .utf8)
            + "control: \(control)\nstate: \(directory)/state\ndns: {resolvers: [203.0.113.131]}\n")
            .write(toFile: configuration, atomically: true, encoding: .utf8)
        let agent = try lab.start(host, "matd", "--config", configuration)
        let registered = try lab.on(host, "mat", "status", "--wait", "10", "--control", control)
        #expect(registered.status == 0, "\(registered.text)\n\(agent.text)")
        return (agent, control)
    }

    @Test("From a token to connections that survive in both families, in under ten seconds; leaving gives all of it back")
    func joinAndLeave() throws {
        let lab = try Lab.shared
        let directory = "/run/\(lab.name)/joined"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let began = Date()
        let pools = ["--prefix 192.0.2.0/24", "--prefix 2001:db8:10::/48"].joined(separator: " ")
        let made = try ims(lab, "token", "create", pools, "--host", "203.0.113.132", "--uses", "1")
        let token = made.text.trimmingCharacters(in: .whitespacesAndNewlines)
        #expect(made.status == 0 && token.hasPrefix("mat-join:203.0.113.132:"), "\(made.text)")

        let joined = try lab.on("plain", "mat", "join", token, "--directory", directory)
        #expect(joined.status == 0 && joined.text.hasPrefix("this host is "), "\(joined.text)")
        // Again, as after a lost reply: the same addresses.
        let again = try lab.on("plain", "mat", "join", token, "--directory", directory)
        #expect(again.text.split(separator: "\n").first == joined.text.split(separator: "\n").first)
        let words = joined.text.split(whereSeparator: { " ,\n".contains($0) }).map(String.init)
        let homes = [try #require(words.first { $0.hasPrefix("192.0.2.") }), try #require(words.first { $0.hasPrefix("2001:db8:10:") })]

        let (agent, control) = try startAgent(lab, on: "plain", in: directory)
        let seconds = Date().timeIntervalSince(began)
        print("from making the token to being registered in both families: \(String(format: "%.1f", seconds)) s")
        #expect(seconds < 10)

        for (home, cn) in zip(homes, Self.cn) {
            let ping = try lab.on("plain", "ping", "-c", "2", "-i", "0.2", "-W", "2", "-I", home, cn)
            #expect(ping.text.contains(" 0% packet loss"), "\(ping.text)")
            try lab.wait("cn has \(home) as a peer") { try lab.peers("cn").contains { $0["home"] as? String == home } }
        }
        let enrolled = try ims(lab, "enrolled", "--json")
        for home in homes { #expect(enrolled.text.contains("\"\(home)\"")) }
        #expect(try ims(lab, "token", "list").text.contains("spent"))
        let second = try lab.on("plain2", "mat", "join", token, "--directory", directory + "2")
        #expect(second.status == 1 && second.text.contains("the token is spent"), "\(second.text)")
        try? FileManager.default.removeItem(atPath: directory + "2")

        // An agent that runs would register again.
        let early = try lab.on("plain", "mat", "leave", "--directory", directory, "--control", control)
        #expect(early.status == 1 && early.text.contains("matd is running"), "\(early.text)")
        agent.terminate()
        _ = try agent.wait(seconds: 10)
        _ = try lab.on("plain", "matd", "--remove")
        let left = try lab.on("plain", "mat", "leave", "--directory", directory, "--control", control, seconds: 20)
        #expect(left.status == 0, "\(left.text)")
        for file in ["node.key", "join.token", "matd.yaml"] { #expect(!FileManager.default.fileExists(atPath: "\(directory)/\(file)")) }
        #expect(!(try ims(lab, "enrolled").text.contains("\(homes[0]) ")))
    }

    @Test(
        "From a token to ssh sessions of both families that a move does not end, in under ten seconds: on an open network, and behind a home's NAT",
        arguments: ["wlan", "home"])
    func sshAfterJoining(network: String) throws {
        let lab = try Lab.shared
        // A host that nothing of ours is on, with links of its own.
        try lab.lab("stop", "mn")
        _ = try lab.on("mn", "matd", "--remove")
        try lab.lab("move", "mn", network)
        let directory = "/run/\(lab.name)/ssh-\(network)"
        let keys = "mkdir -p \(directory) /run/sshd && for k in host user; do ssh-keygen -q -t ed25519 -N '' -f \(directory)/$k </dev/null; done"
        #expect(try lab.shell("cn", keys).status == 0)
        let options = ["PidFile=none", "StrictModes=no", "UsePAM=no", "PermitRootLogin=yes", "AuthorizedKeysFile=\(directory)/user.pub"]
        let words = ["-D", "-e", "-f", "/dev/null", "-p", "7022", "-h", "\(directory)/host"] + options.flatMap { ["-o", $0] }
        let server = try lab.start("cn", "/usr/sbin/sshd", arguments: words)
        defer { server.terminate() }
        try lab.wait("cn has a server of ssh") { try lab.shell("cn", "ss -ltn").text.contains(":7022 ") }

        let began = Date()
        let token = try ims(lab, "token", "create", "--prefix 192.0.2.0/24 --prefix 2001:db8:10::/48", "--host", "203.0.113.132").text
        let joined = try lab.on("mn", "mat", "join", token.trimmingCharacters(in: .whitespacesAndNewlines), "--directory", directory)
        #expect(joined.status == 0, "\(joined.text)")
        let (agent, control) = try startAgent(lab, on: "mn", in: directory)
        let accepts = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "TCPKeepAlive=no"].flatMap { ["-o", $0] }
        let sessions = try Self.cn.map { cn in
            try lab.start(
                "mn", "ssh",
                arguments: ["-q", "-F", "/dev/null", "-i", "\(directory)/user", "-p", "7022"] + accepts
                    + ["root@\(cn)", "while sleep 0.05; do echo x; done"])
        }
        func goOn(_ when: String) throws {
            let before = sessions.map(\.text.count)
            for (session, count) in zip(sessions, before) {
                try lab.wait("\(when) a session goes on: \(session.text.suffix(200))\n\(agent.text.suffix(3000))") { session.text.count > count + 4 }
            }
        }
        try goOn("at first")
        let seconds = Date().timeIntervalSince(began)
        print("\(network): from making the token to ssh in both families: \(String(format: "%.1f", seconds)) s")
        #expect(seconds < 10)
        // From its home addresses.
        let seen = try lab.on("cn", "ss", "-Htn", "state", "established", "sport = :7022").text
        #expect(seen.contains("[2001:db8:10:") && seen.contains("192.0.2."), "\(seen)")
        try lab.lab("move", "mn", "cellular")
        try goOn("after a move")
        #expect(sessions.allSatisfy { $0.isRunning })

        for process in sessions + [agent] {
            process.terminate()
            _ = try process.wait(seconds: 10)
        }
        _ = try lab.on("mn", "matd", "--remove")
        let left = try lab.on("mn", "mat", "leave", "--directory", directory, "--control", control, seconds: 20)
        #expect(left.status == 0, "\(left.text)")
        try? FileManager.default.removeItem(atPath: directory)
        try lab.lab("move", "mn", "wlan")
        try lab.lab("start", "mn")
    }

    @Test("Wrong tokens, servers that are not there and hosts that have no name end in a sentence that says so")
    func wrong() throws {
        let lab = try Lab.shared
        let directory = "/run/\(lab.name)/wrong"
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let made = try ims(lab, "token", "create", "--prefix", "192.0.2.0/24", "--host", "203.0.113.132")
        let token = made.text.trimmingCharacters(in: .whitespacesAndNewlines)
        func join(_ token: String) throws -> String { try lab.on("plain", "mat", "join", token, "--directory", directory, "--no-start").text }
        let secret = try #require(token.split(separator: ":").last.map(String.init))
        #expect(try join("hello").contains("a token begins with \"mat-join:\""))
        #expect(try join("mat-join:203.0.113.132:\(secret.dropLast(4))").contains("characters are missing or were changed"))
        #expect(try join("mat-join:203.0.113.132:A\(secret.dropFirst())").contains("the token is not known here"))
        // Another server of the same operator has another key and other tokens; one that is none does not answer.
        #expect(try join("mat-join:203.0.113.133:\(secret)").contains("gives no address"))
        #expect(try join("mat-join:203.0.113.131:\(secret)").contains("does not answer at port 6288"))
        let revoked = try ims(lab, "token", "revoke", String(try #require(ims(lab, "token", "list").text.split(separator: "\n").last).prefix(16)))
        #expect(revoked.text.contains("revoked"))
        #expect(try join(token).contains("the token is revoked"))
        #expect(lab.log("ims1", "imsd").contains("refused Join of key"))
    }

    @Test(
        "A family whose pool is used up is named and asked for again; leaving takes back what joining gave, and leaves what an operator had there before"
    )
    func partly() throws {
        let lab = try Lab.shared
        let (first, second) = ("/run/\(lab.name)/first", "/run/\(lab.name)/second")
        let others = ["/run/\(lab.name)/other1", "/run/\(lab.name)/other2"]
        defer { for directory in [first, second] + others { try? FileManager.default.removeItem(atPath: directory) } }
        let made = try ims(lab, "token", "create", "--prefix 192.0.2.132/30 --prefix 2001:db8:10:77::/64", "--host", "203.0.113.132")
        let token = made.text.trimmingCharacters(in: .whitespacesAndNewlines)
        func join(_ directory: String, _ token: String) throws -> Lab.Output {
            try lab.on("plain", "mat", "join", token, "--directory", directory, "--no-start")
        }
        func leave(_ directory: String) throws -> Lab.Output {
            try lab.on("plain", "mat", "leave", "--directory", directory, "--control", "\(directory)/none", seconds: 20)
        }
        let only = try ims(lab, "token", "create", "--prefix 192.0.2.132/30", "--host", "203.0.113.132").text
        for directory in others { #expect(try join(directory, only.trimmingCharacters(in: .whitespacesAndNewlines)).status == 0) }

        // A host that an operator has enrolled with its key and configuration, which names no more than that.
        let own = try lab.shell(
            "plain",
            """
            mkdir -p \(second) && cd \(second) && key=$(mat keygen --out node.key) && printf '# ours\ncontrol-group: nogroup\n' >matd.yaml \
            && mat enrol 192.0.2.140 --control \(lab.control("ims1")) --public-key $key >192.0.2.140.certificate
            """)
        #expect(own.status == 0, "\(own.text)")
        for directory in [first, second] {
            let joined = try join(directory, token)
            #expect(joined.status == 0 && joined.text.contains("no address of IPv4: no address is free in 192.0.2.132/30"), "\(joined.text)")
            #expect(joined.text.contains("this host is 2001:db8:10:77:"), "\(joined.text)")
        }
        for directory in others { #expect(try leave(directory).status == 0) }
        let whole = try join(first, token)
        #expect(whole.text.contains(" and 192.0.2.13") && !whole.text.contains("no address of"), "\(whole.text)")
        let configuration = try String(contentsOfFile: "\(first)/matd.yaml", encoding: .utf8)
        #expect(configuration.contains("\"192.0.2.13") && configuration.contains("\"2001:db8:10:77:"), "\(configuration)")

        for directory in [first, second] {
            let left = try leave(directory)
            #expect(left.status == 0 && left.text.contains("gave 2001:db8:10:77:"), "\(left.text)")
        }
        #expect(!FileManager.default.fileExists(atPath: first))
        #expect(try FileManager.default.contentsOfDirectory(atPath: second).sorted() == ["192.0.2.140.certificate", "matd.yaml", "node.key"])
        #expect(try String(contentsOfFile: "\(second)/matd.yaml", encoding: .utf8) == "# ours\ncontrol-group: nogroup\n")
        let enrolled = try ims(lab, "enrolled")
        #expect(enrolled.text.contains("192.0.2.140 ") && !enrolled.text.contains("2001:db8:10:77:"), "\(enrolled.text)")
    }
}
