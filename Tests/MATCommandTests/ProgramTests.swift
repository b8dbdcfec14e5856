import Foundation
import MATControl
import MATRuntime
import MATSignal
import Testing

@testable import MATCommand

/// The real `mat`, as scripts call it.
@Suite(
    "mat as a program",
    .enabled(if: Program.path != nil, "mat is not beside the test bundle; build it with swift build --product mat"))
final class ProgramTests {
    let directory: String

    init() throws {
        directory = "/tmp/mat-command-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    func mat(_ arguments: String...) throws -> Program.Outcome { try Program.run(arguments) }

    /// Those of other packages are looked at where they were built beside these.
    @Test(
        "Every program tells its version and its usage, and does nothing else",
        arguments: [
            "mat", "matd", "imsd", "mat-relay", "mat-probe", "mat-lab", "mat-bench", "mat-load", "relay-load", "ims-limits",
        ])
    func versions(_ name: String) throws {
        let path = try #require(Program.path).dropLast("mat".count) + name
        let isOurs = ["mat", "matd", "imsd", "mat-relay"].contains(name)
        guard FileManager.default.isExecutableFile(atPath: String(path)) else {
            #expect(!isOurs, "\(path) is missing")
            return
        }
        let version = try Program.run(["--version"], program: String(path))
        #expect(version.status == 0 && version.error.isEmpty && version.output == MATVersion.text + "\n", "\(name): \(version)")
        let help = try Program.run(["--help"], program: String(path))
        #expect(help.status == 0 && help.error.isEmpty && help.output.contains("USAGE: ") && help.output.contains("--version"), "\(name)")
        guard name != "mat", isOurs else { return }
        // What the help names is what is taken.
        let level = try Program.run(["--log-level", "critical"], program: String(path))
        #expect(level.status == 64 && level.error.contains("- error") && !level.error.contains("- critical"), "\(name): \(level.error)")
    }

    @Test("keygen prints the public key alone, and writes a file that only its owner reads")
    func keygen() throws {
        let file = directory + "/node.key"
        let made = try mat("keygen", "--out", file)
        #expect(made.status == 0 && made.error.isEmpty)
        let key = try #require(KeyFile.parsePublicKey(made.output.trimmingCharacters(in: .newlines)))
        #expect(made.output == KeyFile.write(key) + "\n")
        #expect(try TextFile.mode(of: file) == 0o600)
        #expect(KeyFile.parsePrivateKey(try TextFile.read(file))?.publicKey == key)
        #expect(try mat("keygen", "--show", file).output == made.output)
    }

    @Test("keygen leaves a key that is there alone, unless forced")
    func keygenKeeps() throws {
        let file = directory + "/node.key"
        let first = try mat("keygen", "--out", file).output
        let second = try mat("keygen", "--out", file)
        #expect(second.status == 1 && second.output.isEmpty)
        #expect(second.error.contains("stays as it is") && second.error.contains("--force"))
        #expect(try mat("keygen", "--show", file).output == first)
        let forced = try mat("keygen", "--out", file, "--force")
        #expect(forced.status == 0 && forced.output != first)
        #expect(try mat("keygen", "--show", file).output == forced.output)
        #expect(try TextFile.mode(of: file) == 0o600)
    }

    @Test("keygen says what is wrong with a file, and which arguments it wants")
    func keygenErrors() throws {
        #expect(try mat("keygen").status == 64)
        #expect(try mat("keygen", "--out", directory + "/a", "--show", directory + "/b").status == 64)
        // No remedy that could not help.
        let directories = try mat("keygen", "--out", directory)
        #expect(directories.status == 1 && directories.error == "mat: can't write \(directory): it is a directory, not a file\n")
        let missing = try mat("keygen", "--show", directory + "/none")
        #expect(missing.status == 1 && missing.error.contains("No such file") && missing.error.contains("mat keygen --out"))
        try "nothing".write(toFile: directory + "/text", atomically: false, encoding: .utf8)
        chmod(directory + "/text", 0o644)
        let open = try mat("keygen", "--show", directory + "/text")
        #expect(open.status == 1 && open.error.contains("others may read") && open.error.contains("run chmod 600 \(directory)/text"))
        chmod(directory + "/text", 0o600)
        let wrong = try mat("keygen", "--show", directory + "/text")
        #expect(wrong.status == 1 && wrong.error.contains("holds no private key"))
        #expect(try mat("keygen", "--out", directory + "/no/such/directory").status == 1)
    }

    @Test("enrol tells wrong usage from a daemon that is not there")
    func enrolErrors() throws {
        let key = try mat("keygen", "--out", directory + "/k").output.trimmingCharacters(in: .newlines)
        for arguments in [
            ["enrol"], ["enrol", "192.0.2.300", "--public-key", key], ["enrol", "127.0.0.1", "--public-key", key],
            ["enrol", "192.0.2.1", "--public-key", "abc"], ["enrol", "192.0.2.1", "--public-key", key, "--lifetime", "a year"],
        ] {
            let outcome = try Program.run(arguments)
            #expect(outcome.status == 64 && outcome.output.isEmpty, "\(arguments)")
        }
        let absent = try mat("enrol", "192.0.2.1", "--public-key", key, "--control", directory + "/imsd/control.sock")
        #expect(absent.status == 2 && absent.output.isEmpty)
        #expect(absent.error.contains("imsd isn't running") && absent.error.contains("systemctl start imsd"))
    }

    @Test("Without a daemon, status and peers exit with 2, and --wait waits as long as it was told")
    func unreachable() throws {
        let socket = directory + "/matd/control.sock"
        for command in ["status", "peers", "handover"] { #expect(try mat(command, "--control", socket).status == 2) }
        let before = SystemClock.now().monotonic
        #expect(try mat("status", "--control", socket, "--wait", "0.5").status == 2)
        #expect(SystemClock.now().monotonic - before >= .milliseconds(500))
    }

    @Test("Daemons are asked where the environment says, unless an option does; a variable without a value says nothing")
    func environment() throws {
        let program = try #require(Program.path)
        func mat(_ arguments: String...) throws -> String { try Program.run(arguments, program: "/usr/bin/env").error }
        let (node, server) = ("MATD_CONTROL=\(directory)/a.sock", "IMSD_CONTROL=\(directory)/b.sock")
        #expect(try mat(node, server, program, "status").contains("matd isn't running (no socket at \(directory)/a.sock)"))
        #expect(try mat(node, server, program, "ims", "status").contains("imsd isn't running (no socket at \(directory)/b.sock)"))
        #expect(try mat(node, program, "status", "--control", directory + "/c.sock").contains("no socket at \(directory)/c.sock"))
        #expect(try !mat("MATD_CONTROL=", program, "status").contains("no socket at )"))
        let none = ["MATD", "IMSD", "MAT_RELAY"].map { "\($0)_CONFIG=\(directory)/\($0)" }
        let doctor = try Program.run(none + [program, "doctor"], program: "/usr/bin/env")
        #expect(doctor.status != 0 && doctor.error.contains("neither \(directory)/MATD nor \(directory)/IMSD nor \(directory)/MAT_RELAY"))
    }

    @Test("A daemon's refusal is exit status 1, and its reason is shown")
    func refused() throws {
        let socket = directory + "/control.sock"
        let status = try RenderingTests.report(RenderingTests.status)
        let loop = try EventLoop()
        let server = try ControlServer(loop: loop, path: socket) { request, respond in
            respond(
                request.command == "handover"
                    ? .failed("wlan7 has no usable address; usable now: wlan0") : .result(status))
        }
        defer { server.stop() }
        let outcomes = Outcomes()
        let poster = loop.poster
        let thread = Thread {
            for arguments in [["handover", "wlan7"], ["status"], ["status", "--json"], ["status", "--wait", "5"]] {
                outcomes.add(Result { try Program.run(arguments + ["--control", socket]) })
            }
            poster.post { outcomes.stop?() }
        }
        outcomes.stop = { loop.stop() }
        thread.start()
        try loop.run()
        let results = try outcomes.results.map { try $0.get() }
        #expect(results.map(\.status) == [1, 0, 0, 0])
        #expect(results[0].error == "mat: wlan7 has no usable address; usable now: wlan0\n")
        #expect(results[1].output == StatusText.text(status))
        #expect(try ControlJSON.decode(NodeReport.self, from: results[2].output.utf8) == status)
    }

    @Test("The zone of an imsd.yaml is one that name servers accept")
    func zone() throws {
        let checkers = ["/usr/sbin/nsd-checkzone", "/usr/bin/kzonecheck"].filter(FileManager.default.isExecutableFile)
        if checkers.isEmpty { print("zones are not checked by a name server: neither nsd-checkzone nor kzonecheck is installed") }
        let key = try mat("keygen", "--out", directory + "/ims.key").output.trimmingCharacters(in: .newlines)
        try """
        store: \(directory)/ims.db
        signing-key: \(directory)/ims.key
        listen: {port: 6300, addresses: []}
        prefixes:
          - prefix: 192.0.2.0/24
          - prefix: 2001:db8:10::/64
        """.write(toFile: directory + "/imsd.yaml", atomically: false, encoding: .utf8)
        for form in ["ims", "srv", "both"] {
            let outcome = try mat(
                "zone", "--config", directory + "/imsd.yaml", "--target", "ims1.example", "--address", "203.0.113.132", "--form",
                form, "--hoa",
                "192.0.2.10", "--zone", "2.0.192.in-addr.arpa")
            #expect(outcome.status == 0 && outcome.error.isEmpty)
            #expect(outcome.output.contains("TYPE65400") == (form != "srv"))
            #expect(outcome.output.contains("ed25519=\(key)") == (form != "ims"))
            #expect(outcome.output.contains("6300") == (form != "ims"))
            #expect(outcome.output.contains("10.2.0.192.in-addr.arpa.") && !outcome.output.contains("ip6.arpa"))
            let head =
                "2.0.192.in-addr.arpa. 300 SOA ns.example. hostmaster.example. 1 3600 600 86400 300\n2.0.192.in-addr.arpa. 300 NS ns.example.\n"
            let file = directory + "/zone.\(form)"
            try (head + outcome.output).write(toFile: file, atomically: false, encoding: .utf8)
            for checker in checkers {
                let arguments =
                    checker.hasSuffix("kzonecheck") ? ["-o", "2.0.192.in-addr.arpa", file] : ["2.0.192.in-addr.arpa", file]
                let verdict = try Program.run(arguments, program: checker)
                #expect(verdict.status == 0, "\(checker): \(verdict.output)\(verdict.error)")
            }
        }
        let relays = ["--relay", "203.0.113.53,2001:db8:53::53", "--relay", "203.0.113.54:7000"]
        let arguments = ["zone", "--config", directory + "/imsd.yaml", "--target", "ims1.example", "--form"]
        let relayed = try Program.run(arguments + ["ims"] + relays)
        // Parameter 3 with 36 and with 18 octets; 18 92 is port 6290, 1b 58 is 7000.
        #expect(relayed.status == 0 && relayed.output.contains("0003002400000000000000000000ffffcb007135189220010db8005300000000000000000053"))
        #expect(relayed.output.contains("0003001200000000000000000000ffffcb0071361b58"))
        let placeless = try Program.run(arguments + ["srv"] + relays)
        #expect(placeless.status == 64 && placeless.error.contains("no place for relays"))
        try (try String(contentsOfFile: directory + "/imsd.yaml", encoding: .utf8) + "\nrelays: [203.0.113.55]\n").write(
            toFile: directory + "/relays.yaml", atomically: false, encoding: .utf8)
        let configured = try mat("zone", "--config", directory + "/relays.yaml", "--target", "ims1.example")
        #expect(configured.status == 0 && configured.output.contains("0003001200000000000000000000ffffcb0071371892"))
        let foreign = try mat("zone", "--config", directory + "/imsd.yaml", "--target", "ims1.example", "--hoa", "198.51.100.1")
        #expect(foreign.status == 1 && foreign.error.contains("in none of the prefixes"))
        #expect(try mat("zone", "--target", "ims1.example").status == 64)
        #expect(try mat("zone", "--prefix", "192.0.2.0/24", "--key", key, "--target", "ims1.example").status == 0)
    }

    @Test("zone --origin writes each address's lines for a zone of its own, --parent the aliases that lead there, and what can't be is refused")
    func zoneOrigin() throws {
        let key = KeyFile.write(try #require(SigningKey(seed: [UInt8](repeating: 1, count: 32))).publicKey)
        func zone(_ prefixes: [String], _ more: String...) throws -> Program.Outcome {
            try Program.run(
                ["zone", "--key", key, "--target", "ims1.example.net", "--origin", "64/30.2.0.192.in-addr.arpa"]
                    + prefixes.flatMap { ["--prefix", $0] } + more)
        }
        let lines = try zone(["192.0.2.64/30", "2001:db8::/48"], "--form", "ims").output.split(separator: "\n").map(String.init)
        #expect(lines.count == 6 && lines.first == "; begin mat zone ims1.example.net.")
        for (index, line) in lines.dropFirst().dropLast().enumerated() {
            #expect(line.hasPrefix("\(64 + index).64/30.2.0.192.in-addr.arpa. 300 IN TYPE65400 "), "\(line)")
        }
        let parent = try zone(["192.0.2.64/30"], "--parent", "--ttl", "3600")
        #expect(parent.output.hasPrefix("64.2.0.192.in-addr.arpa. 3600 IN CNAME 64.64/30.2.0.192.in-addr.arpa.\n65.2.0.192"), "\(parent)")
        #expect(parent.output.split(separator: "\n").count == 4)
        // Of several prefixes those that the zone's name is for.
        #expect(try zone(["192.0.2.64/30", "203.0.113.64/30"], "--parent").output == parent.output.replacing("3600", with: "300"))
        #expect(try zone(["2001:db8::/48"]).error.contains("--origin is for IPv4 prefixes of /24 or longer"))
        #expect(try zone(["198.51.100.64/30", "203.0.113.64/30"]).error.contains("are in several /24"))
        #expect(try zone(["192.0.2.64/30"], "--hoa", "192.0.2.65").status == 64)
        #expect(try mat("zone", "--key", key, "--target", "ims1.example.net", "--prefix", "192.0.2.64/30", "--parent").status == 64)
    }

    @Test("zone --into puts a server's lines in the place of its earlier ones, leaves the rest, and names other lines of mapping servers")
    func zoneInto() throws {
        let file = directory + "/zone"
        let head = "$TTL 300\n@ SOA ns. host. 1 2 3 4 5\n"
        let tail = "1 PTR a.example.\n9 IN TYPE65400 \\# 1 00\n"
        try (head + tail).write(toFile: file, atomically: false, encoding: .utf8)
        func zone(_ seed: UInt8, _ target: String = "ims1.example.") throws -> Program.Outcome {
            let key = KeyFile.write(try #require(SigningKey(seed: [UInt8](repeating: seed, count: 32))).publicKey)
            return try mat("zone", "--prefix", "192.0.2.0/24", "--key", key, "--target", target, "--into", file)
        }
        let first = try zone(1)
        #expect(first.status == 0 && first.output.isEmpty && first.error.contains("added the lines of ims1.example."), "\(first)")
        #expect(first.error.contains("\(file):4: this line names a mapping server, outside of a block"), "\(first)")
        #expect(try zone(2, "ims2.example.").status == 0)
        let both = try TextFile.read(file)
        let again = try zone(3)
        #expect(again.status == 0 && again.error.contains("replaced the lines of ims1.example."), "\(again)")
        #expect(again.error.components(separatedBy: "outside of a block").count == 2, "\(again)")
        let text = try TextFile.read(file)
        #expect(text != both && text.count == both.count && text.hasPrefix(head + tail + "; begin mat zone ims1.example.\n"))
        #expect(text.hasSuffix("; end mat zone ims2.example.\n") && text.components(separatedBy: "begin mat zone").count == 3)
        try text.replacing("; end mat zone ims1.example.\n", with: "").write(toFile: file, atomically: false, encoding: .utf8)
        let broken = try zone(4)
        #expect(broken.status == 1 && broken.error.contains("has no \"; end mat zone ims1.example.\""), "\(broken)")
    }

    @Test(
        "zone --into leaves a zone file its owner, its mode and the link to it, and refuses what is no file or no text", .enabled(if: geteuid() == 0))
    func zoneOwner() throws {
        let (file, link, pipe) = (directory + "/zone", directory + "/link", directory + "/pipe")
        try "$TTL 300\n".write(toFile: file, atomically: false, encoding: .utf8)
        try #require(chown(file, 65_534, 65_533) == 0 && chmod(file, 0o640) == 0 && symlink("zone", link) == 0 && mkfifo(pipe, 0o600) == 0)
        let key = KeyFile.write(try #require(SigningKey(seed: [UInt8](repeating: 1, count: 32))).publicKey)
        func zone(_ path: String) throws -> Program.Outcome {
            try mat("zone", "--prefix", "192.0.2.0/24", "--key", key, "--target", "ims1.example.", "--into", path)
        }
        #expect(try zone(link).status == 0)
        var status = stat()
        #expect(lstat(file, &status) == 0 && status.st_uid == 65_534 && status.st_gid == 65_533 && status.st_mode == S_IFREG | 0o640)
        #expect(lstat(link, &status) == 0 && status.st_mode & S_IFMT == S_IFLNK)
        #expect(try TextFile.read(file).contains("begin mat zone ims1.example."))
        let refused = try zone(pipe)
        #expect(refused.status == 1 && refused.error == "mat: read \(pipe): it is a FIFO, not a file\n", "\(refused)")
        try Data("; caf\u{e9}\n".unicodeScalars.map { UInt8($0.value) }).write(to: URL(filePath: file))
        let latin = try zone(file)
        #expect(latin.status == 1 && latin.error.contains("is not UTF-8"), "\(latin)")
        for arguments in [["--priority", "70000"], ["--weight", "65536"]] {
            let wrong = try Program.run(["zone", "--prefix", "192.0.2.0/24", "--key", key, "--target", "ims1.example."] + arguments)
            #expect(wrong.status == 64 && wrong.error.contains("write a whole number from 0 to 65535"), "\(wrong)")
        }
    }

    @Test("A user who may not talk to a daemon is told so, and how he may; nobody says that it does not run", .enabled(if: geteuid() == 0))
    func forbidden() throws {
        let socket = directory + "/control.sock"
        let loop = try EventLoop()
        let server = try ControlServer(loop: loop, path: socket) { _, respond in respond(.failed("not asked")) }
        defer { server.stop() }
        try #require(chmod(directory, 0o755) == 0)
        // As somebody who has no group of its.
        func mat(_ arguments: [String]) throws -> Program.Outcome {
            let user = ["--reuid", "65534", "--regid", "65534", "--clear-groups"]
            return try Program.run(user + [try #require(Program.path)] + arguments + ["--control", socket], program: "/usr/bin/setpriv")
        }
        for command in [["status"], ["ims", "status"], ["handover", "wlan0"]] {
            let outcome = try mat(command)
            #expect(
                outcome.status == 2 && outcome.error.contains("socket is there (\(socket)), but the user ")
                    && outcome.error.contains("use sudo, or "),
                "\(outcome)")
        }
        // No time is lost on what waiting does not change.
        let began = SystemClock.now().monotonic
        #expect(try mat(["status", "--wait", "20"]).status == 2)
        #expect(SystemClock.now().monotonic - began < .seconds(10))
        let trace = try mat(["trace", "192.0.2.10", "--resolver", "127.0.0.1:1"])
        #expect(
            trace.output.contains("node    doubt  permission denied: matd's socket is there") && !trace.output.contains("matd does not run"),
            "\(trace)")
        let yaml = directory + "/matd.yaml"
        try "{}".write(toFile: yaml, atomically: false, encoding: .utf8)
        let doctor = try mat(["doctor", "--node", "--node-config", yaml])
        #expect(doctor.output.contains("matd's socket is there") && !doctor.output.contains("systemctl start"), "\(doctor)")
    }

    @Test("A daemon that gives no answer may have done what it was asked: no claim that it failed, and a status of its own")
    func unanswered() throws {
        let socket = directory + "/control.sock"
        let loop = try EventLoop()
        let server = try ControlServer(loop: loop, path: socket) { _, _ in }
        defer { server.stop() }
        // Connections are taken by the kernel, and nobody reads from them.
        let failure = #expect(throws: CommandFailure.self) {
            try NodeControl.request(
                .handover, HandoverRequest(interface: "wlan0", peer: nil), as: NodeReport.self, at: socket, timeout: .milliseconds(200),
                unanswered: HandoverText.unanswered(peer: nil))
        }
        #expect(
            failure?.description
                == "matd was asked, and gave no answer within 0.2 s; matd may still move: see `mat history`, and what `mat status` says is preferred")
        #expect(failure?.status.rawValue == 3)
    }

    @Test("Tokens name hosts that nodes can look up, and nothing else")
    func tokenHosts() throws {
        for host in ["a b", "", "ims1..example", "192.0.2", "https://ims1.example", "[2001:db8::1]", "ims1.example:6288"] {
            let outcome = try mat("ims", "token", "create", "--prefix", "192.0.2.0/24", "--host", host)
            #expect(outcome.status == 64 && outcome.error.contains("--host takes the name or address at which nodes reach this server"), "\(outcome)")
        }
        #expect(!JoinToken.isHost("-a.example") && !JoinToken.isHost("a-.example"))
        for host in ["ims1.example.net", "ims1", "ims_1.example.", "192.0.2.1", "2001:db8::1"] { #expect(JoinToken.isHost(host), "\(host)") }
    }

    @Test(
        "mat why says why there is no path to what is nobody's home address",
        arguments: [
            ("127.0.0.1", "loopback"), ("::1", "loopback"), ("0.0.0.0", "unspecified"), ("::", "unspecified"), ("224.0.0.251", "multicast"),
            ("ff02::fb", "multicast"), ("169.254.0.1", "link-local"), ("fe80::1", "link-local"), ("255.255.255.255", "broadcast"),
        ])
    func pathless(_ peer: String, _ kind: String) throws {
        let outcome = try mat("why", peer)
        #expect(outcome.status == 64 && outcome.error.contains("there is no path to \(peer) to explain: it is"), "\(outcome)")
        #expect(outcome.error.contains("\(kind) address, "))
    }

    @Test("DNS servers are those that matd's configuration names; where that can't be read it is said, and the system's are asked")
    func resolvers() throws {
        let yaml = directory + "/matd.yaml"
        try "dns:\n  resolvers: [\"127.0.0.9:5353\"]\n  require-dnssec: yes\n".write(toFile: yaml, atomically: false, encoding: .utf8)
        let configured = DNSChoice(configuration: yaml)
        #expect(configured.servers.map(\.description) == ["127.0.0.9:5353"] && configured.requiresDNSSEC)
        #expect(configured.origin == "`dns` in \(yaml)" && configured.doubt == nil)
        let named = DNSChoice(named: configured.servers, configuration: directory + "/none")
        #expect(named.servers == configured.servers && named.origin == "--resolver" && !named.requiresDNSSEC)
        let absent = DNSChoice(configuration: directory + "/none")
        #expect(absent.servers.isEmpty && absent.doubt == nil && absent.origin == "/etc/resolv.conf")
        // As `mat enrol` looks for them.
        #expect(DNSChoice(configuration: directory + "/none", yaml).asked == "127.0.0.9:5353 (`dns` in \(yaml))")
        #expect(DNSChoice(configuration: yaml, directory).servers == configured.servers)
        let environment = "MATD_CONFIG=\(yaml)"
        let asked = try Program.run([environment, try #require(Program.path), "lookup", "192.0.2.10"], program: "/usr/bin/env")
        #expect(asked.status == 1 && asked.output.contains("asked      127.0.0.9:5353 (`dns` in \(yaml))"), "\(asked)")
        guard geteuid() == 0 else { return }
        try #require(chmod(directory, 0o755) == 0 && chmod(yaml, 0o600) == 0)
        let other = try Program.run(
            [
                "--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/env", environment, try #require(Program.path), "lookup",
                "192.0.2.10",
            ],
            program: "/usr/bin/setpriv")
        #expect(
            other.output.contains("(/etc/resolv.conf)")
                && other.output.contains("\(yaml) may name others to ask (`dns`), and was not read: Permission denied"), "\(other)")
    }

    @Test("What people ask to be written goes to files whole, and straight to FIFOs and what the command was given open")
    func outputs() throws {
        let (file, pipe) = (directory + "/file", directory + "/pipe")
        try OutputFile.write("one\n", to: file, .kept(new: 0o666))
        #expect(try TextFile.read(file) == "one\n")
        let unwritable = #expect(throws: CommandFailure.self) { try OutputFile.write("x", to: self.directory + "/none/x.svg", .kept(new: 0o666)) }
        #expect(unwritable?.description == "can't write \(directory)/none/x.svg: No such file or directory")
        try #require(mkfifo(pipe, 0o600) == 0)
        let reader = open(pipe, O_RDONLY | O_NONBLOCK)
        defer { close(reader) }
        try OutputFile.write("two\n", to: pipe, .fixed(0o600))
        var octets = [UInt8](repeating: 0, count: 16)
        #expect(read(reader, &octets, octets.count) == 4 && FileKind.of(pipe) == .pipe)
        // As `mat ims export --out /dev/stdout`, of a process whose standard output is a pipe.
        let own = try OutputFile("/dev/fd/\(open(file, O_WRONLY | O_APPEND))", .fixed(0o600))
        try own.write(Array("three\n".utf8))
        try own.finish()
        #expect(try TextFile.read(file) == "one\nthree\n")
    }

    @Test("lookup without a DNS server says so, fails with 1, and says it in JSON too")
    func lookup() throws {
        let outcome = try mat("lookup", "192.0.2.10", "--resolver", "127.0.0.1:1")
        #expect(
            outcome.status == 1 && outcome.output.contains("no DNS server is reachable") && outcome.output.contains("remedy: "))
        let json = try mat("lookup", "192.0.2.10", "--resolver", "127.0.0.1:1", "--json")
        #expect(json.status == 1)
        #expect(try JSONValue.parse(Array(json.output.utf8))["reachable"] == false)
    }
}

/// Results handed from the thread that runs programs to the test's.
final class Outcomes: @unchecked Sendable {
    private let lock = NSLock()
    private var collected: [Result<Program.Outcome, any Error>] = []
    /// Called in the loop's thread only.
    var stop: (() -> Void)?

    func add(_ result: Result<Program.Outcome, any Error>) { lock.withLock { collected.append(result) } }
    var results: [Result<Program.Outcome, any Error>] { lock.withLock { collected } }
}

enum Program {
    struct Outcome: Sendable {
        var status: Int32
        var output: String
        var error: String
    }

    /// `mat` beside the test bundle.
    static let path: String? = {
        guard let own = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") else { return nil }
        let path = URL(filePath: own).deletingLastPathComponent().appending(path: "mat").path
        return FileManager.default.isExecutableFile(atPath: path) ? path : nil
    }()

    static func run(_ arguments: [String], program: String? = nil) throws -> Outcome {
        let process = Process()
        process.executableURL = URL(filePath: try #require(program ?? path))
        process.arguments = arguments
        let (output, error) = (Pipe(), Pipe())
        process.standardOutput = output
        process.standardError = error
        process.standardInput = FileHandle.nullDevice
        try process.run()
        // Read one after the other: standard error gets far less than a pipe holds, so the program can't block on it.
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        let complaint = String(decoding: error.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return Outcome(status: process.terminationStatus, output: text, error: complaint)
    }
}
