import Foundation
import Testing

/// Programs on a node that is home to nobody else's sockets: `mat run`, `mat attach`, `mat ps`. The node has two home addresses of each family and two
/// networks, `traffic: nothing`, so that what is not run so is plain.
@Suite("Single programs in network namespaces", .serialized, .lab("programs"))
struct ProgramTests {
    static let cn = ["198.51.100.20", "2001:db8:20::20"], plainHost = ["203.0.113.200", "2001:db8:99::200"]
    static let first = ["192.0.2.10", "2001:db8:10::10"], second = ["192.0.2.12", "2001:db8:10::12"]
    static let port = 7020

    /// Threads that each have a connection, say something all the time, and count what comes back. Linked statically: nothing could be preloaded.
    private static let talk = """
        #include <arpa/inet.h>
        #include <pthread.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        static const char *host; static int port;
        static void *talk(void *number) {
            struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
            struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
            int isV4 = inet_pton(AF_INET, host, &v4.sin_addr) == 1;
            if (!isV4) inet_pton(AF_INET6, host, &v6.sin6_addr);
            int s = socket(isV4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
            if (connect(s, isV4 ? (void *)&v4 : (void *)&v6, isV4 ? sizeof v4 : sizeof v6)) { perror("ended: connect"); exit(1); }
            for (long n = 1;; n++) {
                char c = 'x';
                if (write(s, &c, 1) != 1 || read(s, &c, 1) != 1) { perror("ended"); exit(1); }
                dprintf(1, "%d %ld\\n", (int)(long)number, n);
                usleep(50000);
            }
        }
        int main(int count, char **words) {
            host = words[1]; port = atoi(words[2]);
            for (long i = 0; i < atoi(words[3]); i++) { pthread_t t; pthread_create(&t, 0, talk, (void *)i); }
            for (;;) pause();
        }
        """

    // MARK: The node

    func directory(_ lab: Lab) -> String { "/run/\(lab.name)/mn" }
    func program(_ lab: Lab) -> String { "/run/\(lab.name)/talk" }

    /// Builds the program, gives mn its second home addresses, another network beside the first, and no traffic but what is asked for.
    func prepare(_ lab: Lab) throws {
        guard !FileManager.default.fileExists(atPath: program(lab)) else { return }
        let source = "/run/\(lab.name)/talk.c"
        try Self.talk.write(toFile: source, atomically: true, encoding: .utf8)
        let compiler = "$(command -v cc || echo $(dirname $(readlink -f $(command -v swift)))/clang)"
        let made = try Background(["/bin/sh", "-c", "\(compiler) -static -pthread -o \(program(lab)) \(source)"]).wait(seconds: 60)
        #expect(made.status == 0, "\(made.text)")

        let key = try lab.on("mn", "mat", "keygen", "--show", "\(directory(lab))/node.key").text.trimmingCharacters(in: .whitespacesAndNewlines)
        var entries = ""
        for hoa in Self.second {
            let enrolled = try lab.shell(
                "ims1", "mat enrol --control \(lab.control("ims1")) \(hoa) --public-key '\(key)' >'\(directory(lab))/\(hoa).certificate'")
            #expect(enrolled.status == 0, "\(enrolled.text)")
            entries += "  - address: \"\(hoa)\"\n    key: \(directory(lab))/node.key\n    certificate: \"\(directory(lab))/\(hoa).certificate\"\n"
            // The addresses that are added below, so that each home has its own from the beginning.
            entries += "    use: [203.0.113.61/32, 203.0.113.125/32, \"2001:db8:a::99/128\", \"2001:db8:b::99/128\"]\n"
        }
        let file = "\(directory(lab))/matd.yaml"
        let text = try String(contentsOfFile: file, encoding: .utf8)
        try text.replacingOccurrences(of: "traffic: everything", with: entries + "traffic: nothing\ncontrol-group: nogroup")
            .write(toFile: file, atomically: true, encoding: .utf8)
        try lab.lab("restart", "mn")
        try lab.lab("attach", "mn", "cellular")
        for (interface, ipv4, ipv6) in [("wlan0", "203.0.113.61", "2001:db8:a::99"), ("wwan0", "203.0.113.125", "2001:db8:b::99")] {
            try lab.wait("\(interface) is configured") {
                try lab.shell("mn", "ip -4 address show dev \(interface); ip -6 address show dev \(interface) scope global").text.matches(
                    of: /inet6? (203|2001)/
                ).count >= 2
            }
            let added = try lab.shell("mn", "ip address add \(ipv4)/26 dev \(interface) && ip address add \(ipv6)/64 dev \(interface) nodad")
            #expect(added.status == 0, "\(added.text)")
        }
        try lab.wait("all four home addresses are registered") {
            (try lab.status("mn")["homes"] as? [[String: Any]] ?? []).filter { $0["state"] as? String == "registered" }.count == 4
        }
        for host in ["cn", "plain"] {
            _ = try lab.start(host, "socat", "TCP6-LISTEN:\(Self.port),ipv6only=0,reuseaddr,fork", "EXEC:cat")
            try lab.wait("the echo server of \(host) listens") { try lab.shell(host, "ss -ltn").text.contains(":\(Self.port)") }
        }
    }

    func run(_ lab: Lab, _ words: [String], via: [String] = []) throws -> Background {
        let all = ["mat", "run", "--control", lab.control("mn")] + via.flatMap { ["--via", $0] } + words
        return try lab.start("mn", "/usr/bin/env", arguments: all)
    }

    func talk(_ lab: Lab, _ cn: String, threads: Int = 2) -> [String] { [program(lab), cn, "\(Self.port)", "\(threads)"] }

    /// What every thread of a talking program has counted.
    func counts(_ program: Background) -> [Substring: Int] {
        var result: [Substring: Int] = [:]
        for line in program.text.split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count == 2, let count = Int(words[1]) { result[words[0]] = count }
        }
        return result
    }

    /// Waits until all threads of all these programs have heard something new.
    func goOn(_ lab: Lab, _ programs: [(name: String, program: Background)], threads: Int = 2) throws {
        let before = programs.map { counts($0.program) }
        for (index, (name, program)) in programs.enumerated() {
            try lab.wait("\(name) goes on: \(program.text.suffix(300))\n\(lab.log("mn").suffix(3000))") {
                let now = counts(program)
                return now.count == threads && now.allSatisfy { $0.value > (before[index][$0.key] ?? 0) }
            }
        }
    }

    func groups(_ lab: Lab) throws -> String {
        let network = try lab.shell("mn", "stat -Lc %i /proc/self/ns/net").text.trimmingCharacters(in: .whitespacesAndNewlines)
        // Outside: `ip netns exec` hides control groups.
        let line = "find $(findmnt -n -t cgroup2 -o TARGET | head -1) -name 'mat-\(network)-*'"
        return try Background(["/bin/sh", "-c", line]).wait(seconds: 10).text
    }

    /// Ends programs, and what they have started: all that `mat ps` lists.
    func end(_ lab: Lab, _ programs: [Background]) throws {
        for program in programs { program.terminate() }
        let report = try lab.on("mn", "mat", "ps", "--json", "--control", lab.control("mn")).text
        for match in report.matches(of: /"process" : (\d+)/) { if let process = pid_t(match.1) { kill(process, SIGKILL) } }
        for program in programs { _ = try program.wait(seconds: 10) }
    }

    func rules(_ lab: Lab) throws -> String { try lab.shell("mn", "ip rule; ip -6 rule").text }

    func nothingLeft(_ lab: Lab) throws {
        try lab.wait("nothing is left of the programs") { try groups(lab).isEmpty && !rules(lab).contains("fwmark 0x62880") }
        let report = try lab.on("mn", "mat", "ps", "--json", "--control", lab.control("mn"))
        #expect(report.text.contains("\"groups\" : [\n\n  ]"), "\(report.text)")
        let routes = try lab.shell("mn", "for t in $(seq 4200719 4200725); do ip route show table $t; ip -6 route show table $t; done 2>/dev/null")
            .text
        #expect(routes.isEmpty, "\(routes)")
    }

    // MARK: What people use

    /// Begins the servers of cn, and says which commands talk to them. Like `talk`, each says a number for each of its two threads as it gets on.
    private func everyday(_ lab: Lab) throws -> [(name: String, words: [String])] {
        let directory = "/run/\(lab.name)/ssh"
        let keys = "mkdir -p \(directory) /run/sshd && for k in host user; do ssh-keygen -q -t ed25519 -N '' -f \(directory)/$k </dev/null; done"
        let made = try lab.shell("cn", keys)
        #expect(made.status == 0, "\(made.text)")
        let options = ["PidFile=none", "StrictModes=no", "UsePAM=no", "PermitRootLogin=yes", "AuthorizedKeysFile=\(directory)/user.pub"]
        let server = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "7022", "-h", "\(directory)/host"] + options.flatMap { ["-o", $0] }
        _ = try lab.start("cn", "/usr/bin/env", arguments: server)
        _ = try lab.start("cn", "iperf3", "-s", "-p", "7024")
        try Self.page.write(toFile: "/run/\(lab.name)/page", atomically: true, encoding: .utf8)
        _ = try lab.start("cn", "socat", "TCP6-LISTEN:7025,ipv6only=0,reuseaddr,fork", "EXEC:/bin/bash /run/\(lab.name)/page")
        try lab.wait("cn has servers of ssh, iperf3 and HTTP") {
            let text = try lab.shell("cn", "ss -ltn").text
            return ["7022", "7024", "7025"].allSatisfy { text.contains(":\($0) ") }
        }
        let accepts = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "TCPKeepAlive=no"].flatMap { ["-o", $0] }
        let session = "n=0; while sleep 0.05; do n=$((n+1)); echo 0 $n; echo 1 $n; done"
        let ssh = ["ssh", "-q", "-F", "/dev/null", "-i", "\(directory)/user", "-p", "7022"] + accepts
        // An interval in which nothing came does not count.
        let intervals = "while read -r _ _ _ unit moved _; do [ $unit = sec ] && [ $moved != 0.00 ] && n=$((n+1)) && echo 0 $n && echo 1 $n; done"
        let iperf = "iperf3 -c \(Self.cn[1]) -p 7024 -R -t 600 -i 0.1 -b 10M --forceflush | \(intervals)"
        return [
            ("ssh", ssh + ["root@\(Self.cn[0])", session]), ("ssh by IPv6", ssh + ["root@\(Self.cn[1])", session]),
            ("iperf3 in a script", ["/bin/sh", "-c", iperf]),
            ("curl", ["curl", "-sN", "--parallel", "http://\(Self.cn[0]):7025/0", "http://[\(Self.cn[1])]:7025/1"]),
        ]
    }

    /// A page without end: a line every now and then.
    private static let page = """
        read -r _ path _
        printf 'HTTP/1.0 200 OK\\r\\n\\r\\n'
        while sleep 0.05; do n=$((n + 1)); echo ${path#/} $n; done
        """

    // MARK: Tests

    @Test(
        "Programs run as a home address (ssh, iperf3, curl, a static one with threads, what scripts start) live through twenty handovers, in both families and with two homes at once; the same run plainly do not"
    )
    func handovers() throws {
        let lab = try Lab.shared
        try prepare(lab)
        var mobile: [(name: String, program: Background)] = []
        var plain: [(name: String, program: Background)] = []
        for host in Self.plainHost { plain.append(("\(host) as everybody", try lab.start("mn", "/usr/bin/env", arguments: talk(lab, host)))) }
        for cn in Self.cn {
            mobile.append(("\(cn)", try run(lab, talk(lab, cn))))
            mobile.append(("\(cn) as the second home", try run(lab, talk(lab, cn), via: Self.second)))
            mobile.append(("\(cn) from a shell's shell", try run(lab, ["/bin/bash", "-c", "(\(talk(lab, cn).joined(separator: " "))); true"])))
        }
        let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        let unprivileged = user + ["mat", "run", "--control", lab.control("mn")] + talk(lab, Self.cn[0])
        _ = try lab.shell("mn", "chmod a+x /run/\(lab.name) \(directory(lab))")
        mobile.append(("of a user", try lab.start("mn", "/usr/bin/env", arguments: unprivileged)))
        try goOn(lab, mobile)
        // From where they are seen.
        let seen = try lab.on("cn", "ss", "-Htn", "state", "established", "sport = :\(Self.port)").text
        func connections(_ address: String) -> Int {
            seen.split(separator: "\n").filter { $0.contains("\(address)]:") || $0.contains("\(address):") }.count
        }
        for (index, address) in Self.first.enumerated() { #expect(connections(address) == (index == 0 ? 6 : 4), "\(seen)") }
        for address in Self.second { #expect(connections(address) == 2, "\(seen)") }

        // Beside them, to the same host, which takes whatever comes from the node's places for the node.
        for cn in Self.cn { plain.append(("\(cn) plainly", try run(lab, talk(lab, cn), via: ["plain"]))) }
        for (name, words) in try everyday(lab) {
            mobile.append((name, try run(lab, words)))
            // iperf3's server has one client at a time.
            if !name.hasPrefix("iperf3") { plain.append(("\(name), plainly", try run(lab, words, via: ["plain"]))) }
        }
        try goOn(lab, mobile + plain)

        let ps = try lab.on("mn", "mat", "ps", "--control", lab.control("mn")).text
        for text in ["from 192.0.2.10 and 2001:db8:10::10:", "from 192.0.2.12", "from the network's own addresses:", "talk", "established", "direct"]
        {
            #expect(ps.contains(text), "\(text) is not in\n\(ps)")
        }

        var interface = "wlan0"
        for _ in 1...20 {
            interface = interface == "wlan0" ? "wwan0" : "wlan0"
            let output = try lab.on("mn", "mat", "handover", interface, "--control", lab.control("mn"))
            #expect(output.status == 0, "\(output.text)")
            try lab.wait("the peers follow to \(interface)\n\(lab.log("mn").suffix(3000))") {
                try lab.peers("mn").allSatisfy { $0["interface"] as? String == interface }
            }
            try goOn(lab, mobile + plain)
        }
        // The network of the plain ones ends.
        let own = try lab.shell("mn", "ip route get \(Self.plainHost[0]); ip -6 route get \(Self.plainHost[1])").text
        let (lost, kept) = own.contains("dev wlan0") ? ("wlan", "wwan0") : ("cellular", "wlan0")
        _ = try lab.on("mn", "mat", "handover", kept, "--control", lab.control("mn"))
        try lab.wait("the peers are at \(kept)") { try lab.peers("mn").allSatisfy { $0["interface"] as? String == kept } }
        try lab.lab("detach", "mn", lost)
        try goOn(lab, mobile)
        let stuck = plain.map { counts($0.program) }
        Thread.sleep(forTimeInterval: 1)
        for (index, (name, program)) in plain.enumerated() { #expect(counts(program) == stuck[index] || !program.isRunning, "\(name) went on") }
        for (name, program) in mobile { #expect(program.isRunning && !program.text.contains("ended"), "\(name): \(program.text.suffix(200))") }

        try end(lab, (mobile + plain).map(\.program))
        try nothingLeft(lab)
        try lab.lab("attach", "mn", lost)
    }

    @Test("A killed agent's programs go on, and make connections; its successor has them again, and a stop for good lets them go")
    func lives() throws {
        let lab = try Lab.shared
        try prepare(lab)
        // One that makes a connection after another, for as long as it lives.
        let line = "while :; do timeout 5 bash -c 'exec 3<>/dev/tcp/\(Self.cn[0])/\(Self.port); echo hello >&3; head -1 <&3'; sleep 0.1; done"
        let again = try run(lab, ["/bin/bash", "-c", line])
        let program = try run(lab, talk(lab, Self.cn[1]))
        try goOn(lab, [("the first", program)])
        func hellos() -> Int { again.text.split(separator: "\n").filter { $0 == "hello" }.count }
        try lab.wait("connections are made: \(again.text)") { hellos() > 2 }
        try lab.lab("stop", "mn", "KILL")
        let before = hellos()
        try lab.wait("connections are made without the agent") { hellos() > before + 2 }
        try goOn(lab, [("without the agent", program)])
        try lab.lab("start", "mn")
        try lab.wait("mn is registered again") { try lab.status("mn")["registered"] as? Bool == true }
        let ps = try lab.on("mn", "mat", "ps", "--control", lab.control("mn")).text
        #expect(ps.contains("talk") && ps.contains("/bin/bash"), "\(ps)")
        try goOn(lab, [("after the start", program)])
        #expect(!again.text.contains("refused") && !again.text.contains("unreachable"), "\(again.text)")

        try lab.lab("stop", "mn")
        #expect(try groups(lab).isEmpty && !rules(lab).contains("fwmark 0x6288"))
        #expect(program.isRunning && again.isRunning)
        for each in [program, again] {
            each.terminate()
            _ = try each.wait(seconds: 10)
        }
        try lab.lab("start", "mn")
        try lab.wait("mn is registered again") { try lab.status("mn")["registered"] as? Bool == true }
    }

    @Test(
        "A running program's next sockets are those of the home address once it is attached; others' programs, wrong addresses and ways that are not there are refused"
    )
    func attach() throws {
        let lab = try Lab.shared
        try prepare(lab)
        let control = ["--control", lab.control("mn")]
        let line = "while read -u 4; do exec 3<>/dev/tcp/\(Self.cn[0])/\(Self.port); done"
        let fifo = "/run/\(lab.name)/go"
        _ = try lab.shell("mn", "rm -f \(fifo); mkfifo \(fifo)")
        let waiting = try lab.start("mn", "/bin/bash", "-c", "exec 4<>\(fifo); echo $$; \(line)")
        try lab.wait("it is there") { Int(waiting.text.split(separator: "\n").first ?? "") != nil }
        let process = String(waiting.text.split(separator: "\n")[0])

        func mat(_ words: String..., as user: [String] = []) throws -> Lab.Output {
            try lab.shell("mn", (user + ["mat"] + words + control).joined(separator: " "))
        }
        let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        _ = try lab.shell("mn", "chmod a+x /run/\(lab.name) \(directory(lab))")
        let foreign = try mat("attach", process, as: user)
        #expect(foreign.status == 1 && foreign.text.contains("another user's"), "\(foreign.text)")
        let wrong = try mat("attach", process, "--via", "192.0.2.99")
        #expect(wrong.status == 1 && wrong.text.contains("no home address of this node"), "\(wrong.text)")
        for (via, reason) in [("visited", "this node takes no visited homes; write `visited: yes`"), ("gateway", "plain: gateway")] {
            let refused = try mat("attach", process, "--via", via)
            #expect(refused.status == 1 && refused.text.contains(reason), "\(refused.text)")
        }
        let nobody = try mat("attach", "4194303")
        #expect(nobody.status == 1 && nobody.text.contains("there is no process"), "\(nobody.text)")
        #expect(try mat("run", "--via", "nonsense", "true").status == 64)
        let elsewhere = try lab.on("plain", "mat", "run", "--control", lab.control("mn"), "true")
        #expect(elsewhere.status == 1 && elsewhere.text.contains("another network namespace"), "\(elsewhere.text)")
        try nothingLeft(lab)
        #expect(try lab.on("mn", "mat", "run", "--control", lab.control("mn"), "/no/such/program").status == 127)
        #expect(try lab.on("mn", "mat", "run", "--control", lab.control("mn"), "--", "/bin/sh", "-c", "exit 7").status == 7)

        let attached = try mat("attach", process, "--via", Self.second[0])
        #expect(attached.status == 0 && attached.text.contains("start from 192.0.2.12 and 2001:db8:10::10"), "\(attached.text)")
        func seen() throws -> String { try lab.shell("mn", "ss -tnoe; mat status --control \(lab.control("mn"))").text }
        try lab.wait("its connection comes from the second home address\n\(try seen())\n\(lab.log("mn").suffix(3000))") {
            // More than once: cn may count as plain for a second, when a plain flow that a test has ended says something still.
            _ = try lab.shell("mn", "echo >\(fifo); sleep 0.3")
            return try lab.on("cn", "ss", "-Htn", "state", "established", "sport = :\(Self.port)").text.contains("192.0.2.12]:")
        }
        let ps = try mat("ps").text
        #expect(ps.contains(process) && ps.contains("192.0.2.12:"), "\(ps)")
        try end(lab, [waiting])
        try nothingLeft(lab)
    }

    @Test("Datagrams of sockets that are bound to nobody come from the home address, and servers answer from the address that they were asked at")
    func datagramsAndServers() throws {
        let lab = try Lab.shared
        try prepare(lab)
        _ = try lab.start("cn", "socat", "-u", "UDP6-RECVFROM:7021,ipv6only=0,fork", "SYSTEM:echo from $SOCAT_PEERADDR >>/run/\(lab.name)/heard")
        try lab.wait("the receiver is there") { try lab.shell("cn", "ss -lun").text.contains(":7021") }
        func heard() -> String { (try? String(contentsOfFile: "/run/\(lab.name)/heard", encoding: .utf8)) ?? "" }
        // socat writes addresses at full length.
        for (kind, cn, home, via) in [
            ("UDP4", Self.cn[0], "0000:0000:0000:0000:0000:ffff:c000:020a", []),
            ("UDP6", "[\(Self.cn[1])]", "2001:0db8:0010:0000:0000:0000:0000:0010", []),
            ("UDP4", Self.cn[0], "0000:0000:0000:0000:0000:ffff:c000:020c", ["--via", Self.second[0]]),
        ] as [(String, String, String, [String])] {
            let words = ["mat", "run", "--control", lab.control("mn")] + via + ["sh", "-c", "echo x | socat -u - \(kind)-SENDTO:\(cn):7021"]
            try lab.wait("a datagram from \(home): \(heard())") {
                _ = try lab.on("mn", "/usr/bin/env", arguments: words)
                return heard().contains("from [\(home)]")
            }
        }

        // A plain host sees where the node is.
        var toPlain: [(name: String, program: Background)] = []
        for host in Self.plainHost { toPlain.append(("\(host) as the home address", try run(lab, talk(lab, host)))) }
        try goOn(lab, toPlain)
        let seen = try lab.on("plain", "ss", "-Htn", "state", "established", "sport = :\(Self.port)").text
        #expect(seen.contains("203.0.113.") && !seen.contains("192.0.2.") && !seen.contains("2001:db8:10:"), "\(seen)")
        try end(lab, toPlain.map(\.program))

        // Plain, and of the second home: asked at the first, or the second, they answer from there.
        for (port, via) in [(7023, "plain"), (7024, Self.second[0])] {
            let server = try run(lab, ["socat", "TCP6-LISTEN:\(port),ipv6only=0,reuseaddr,fork", "EXEC:cat"], via: [via])
            try lab.wait("the server of \(via) listens") { try lab.shell("mn", "ss -ltn").text.contains(":\(port)") }
            for home in ["TCP4:\(Self.first[0])", "TCP6:[\(Self.first[1])]", "TCP4:\(Self.second[0])", "TCP6:[\(Self.second[1])]"] {
                let answer = try lab.shell("cn", "echo hello | timeout 5 socat -t 3 - \(home):\(port),connect-timeout=3")
                #expect(answer.text == "hello\n", "\(home), server of \(via): \(answer.text)")
            }
            try end(lab, [server])
        }
        try nothingLeft(lab)
    }

    @Test(
        "With the unit's capabilities alone it works; without BPF, or without control groups of version 2, `mat run` says which is missing, and runs nothing"
    )
    func privileges() throws {
        let lab = try Lab.shared
        try prepare(lab)
        try lab.lab("stop", "mn")
        let agent = "matd --config \(directory(lab))/matd.yaml"
        let four = "setpriv --bounding-set=-all,+net_admin,+net_raw,+bpf,+perfmon --inh-caps=-all --groups 65534"
        // `ip netns exec` hides control groups. A user's session is in one of its own; the topmost group belongs to nobody.
        let groups = "mount -t cgroup2 none /sys/fs/cgroup && "
        let session = "/sys/fs/cgroup/session-\(lab.name)"
        func command(in group: String) -> String {
            let enter = "\(groups)mkdir -p \(group) && echo $$ >\(group)/cgroup.procs"
            let user = "exec setpriv --reuid 65534 --regid 65534 --clear-groups"
            return "\(enter) && \(user) mat run --control \(lab.control("mn")) /bin/sh -c 'echo it runs in $(grep ^0:: /proc/self/cgroup)'"
        }
        // One that its user was given, and in it another that looks like ours.
        let delegated = "\(session)/own"
        let likeOurs = "\(delegated)/mat-$(stat -Lc %i /proc/self/ns/net)-62880009-plain"
        let made = try lab.shell(
            "mn",
            "\(groups) mkdir -p \(likeOurs) && chown -R 65534 \(delegated) && { sleep 60 >/dev/null 2>&1 & echo $! >\(likeOurs)/cgroup.procs; }")
        #expect(made.status == 0, "\(made.text)")
        for (start, reason) in [
            ("\(groups) exec \(four) \(agent)", nil),
            ("\(groups) exec \(four.replacingOccurrences(of: ",+bpf,+perfmon", with: "")) \(agent)", "CAP_BPF"),
            ("exec \(four) \(agent)", "no control groups of version 2"),
        ] as [(String, String?)] {
            let running = try lab.start("mn", "/bin/sh", "-c", start)
            try lab.wait("matd is there") { try lab.on("mn", "mat", "status", "--control", lab.control("mn")).status == 0 || !running.isRunning }
            #expect(running.isRunning, "\(running.text.suffix(500))")
            if reason == nil {
                #expect(try lab.on("mn", "mat", "ps", "--control", lab.control("mn")).text.contains("no programs"))
                let output = try lab.shell("mn", "\(groups) kill $(cat \(likeOurs)/cgroup.procs); until rmdir \(likeOurs); do sleep 0.1; done")
                #expect(output.status == 0, "\(output.text)")
                let above = try lab.shell("mn", command(in: delegated))
                #expect(above.status == 0 && above.text.contains("it runs in 0::/session-\(lab.name)/mat-"), "\(above.text)")
            }
            let output = try lab.shell("mn", command(in: session))
            if let reason {
                #expect(output.status == 1 && output.text.contains(reason) && !output.text.contains("it runs"), "\(output.text)")
            } else {
                #expect(output.status == 0 && output.text.contains("it runs in 0::/session-\(lab.name)/mat-"), "\(output.text)")
                try nothingLeft(lab)
            }
            running.terminate()
            _ = try running.wait(seconds: 10)
            #expect(try !rules(lab).contains("fwmark 0x62880"))
        }
        _ = try lab.shell("mn", "\(groups) rmdir \(delegated) \(session)")
        try lab.lab("start", "mn")
    }
}
