import Foundation
import IMS
import MATNode
import Testing

/// What the manuals tell to type in their sections EXAMPLES is typed, by a shell on a host of its own: no network, and /etc, /run and /var/lib that end with
/// it. So no example names an option, a key or a file that isn't so.
@Suite(
    "Manuals' examples",
    .enabled(
        if: geteuid() == 0 && Program.path != nil && Program.imsd != nil,
        "root, and mat, matd, imsd and mat-relay beside the test bundle, are needed; build them with deploy/build --tests"))
struct ManualTests {
    /// One example: the lines of a display, as a terminal shows them.
    private struct Example {
        var lines: [String]

        /// What is typed. Where a line has a prompt, lines without one are what a program printed.
        var commands: String {
            let prompt = #/^[a-z]*\$ /#
            guard lines.contains(where: { $0.contains(prompt) }) else { return lines.joined(separator: "\n") }
            var kept: [String] = []
            for line in lines {
                if line.contains(prompt) || kept.last?.hasSuffix("\\") == true { kept.append(line.replacing(prompt, with: "")) }
            }
            return kept.joined(separator: "\n")
        }
    }

    private static func text(_ page: String) throws -> String {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        return try String(contentsOf: root.appendingPathComponent("docs/man/\(page)"), encoding: .utf8)
    }

    private static func examples(_ page: String) throws -> [Example] {
        var found: [Example] = []
        var (inside, display) = (false, false)
        for line in try text(page).split(separator: "\n", omittingEmptySubsequences: false).map(String.init) {
            let shown = line.replacing("\\e", with: "\\").replacing("\\&", with: "")
            if line.hasPrefix(".Sh ") {
                inside = line == ".Sh EXAMPLES"
            } else if !inside {
                continue
            } else if line.hasPrefix(".Bd ") {
                found.append(Example(lines: []))
                display = true
            } else if line == ".Ed" {
                display = false
            } else if display {
                found[found.count - 1].lines.append(shown)
            } else if line.hasPrefix(".Dl ") {
                found.append(Example(lines: [String(shown.dropFirst(4))]))
            }
        }
        return found
    }

    /// The host, and what a person has there anyway. A daemon in the foreground is another terminal's.
    private static let host = """
        set -euo pipefail
        work=$1 programs=$2
        mount -t tmpfs tmpfs "$work"
        mkdir "$work"/{upper,work,programs}
        mount --bind "$programs" "$work/programs"
        mount -t overlay overlay -o "lowerdir=/etc,upperdir=$work/upper,workdir=$work/work" /etc
        mount -t tmpfs tmpfs /run
        mount -t tmpfs tmpfs /var/lib
        mount -t bpf bpf /sys/fs/bpf
        ip link set lo up
        export PATH="$work/programs:$PATH" LC_ALL=C.UTF-8
        cd "$work"
        terminal=
        begin() {
            "$@" >"$work/$1.log" 2>&1 &
            terminal=$!
        }
        # within SECONDS COMMAND: until it succeeds
        within() {
            local tries=$(( $1 * 20 ))
            while ! "${@:2}" >/dev/null 2>&1; do
                (( tries-- )) && kill -0 "$terminal" || { echo "not within $1 s: ${*:2}; $(cat "$work"/*.log)" >&2; exit 1; }
                sleep 0.05
            done
        }
        end() { kill "$terminal"; wait "$terminal"; }
        systemctl() { [[ $* == "reload imsd" ]] && kill -HUP "$terminal"; }
        trap 'echo "line $LINENO: $BASH_COMMAND" >&2' ERR

        """

    /// Runs a script on such a host.
    private func type(_ script: String) throws -> Program.Outcome {
        let directory = "/tmp/mat-manuals-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let programs = URL(filePath: try #require(Program.path)).deletingLastPathComponent().path
        // All that was begun ends with the shell, which is the first process.
        return try Program.run(
            [
                "-s", "KILL", "60", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c",
                Self.host + script, "manual",
                directory, programs,
            ],
            program: "/usr/bin/timeout")
    }

    @Test(
        "A server from nothing, its zone, a changed configuration, a key and its certificate, the agent with it, and out of the host: imsd(8), mat(1), matd(8)"
    )
    func server() throws {
        let (server, mat, matd) = (try Self.examples("imsd.8"), try Self.examples("mat.1"), try Self.examples("matd.8"))
        try #require(server.count == 3 && server[0].lines.last == "imsd" && mat.count >= 1 && matd.count == 4)
        // What the manual shows is what such a key looks like, and not this one.
        let key = try #require(mat[0].lines.first { $0.contains(/^[A-Za-z0-9+\/]{43}=$/) })
        let outcome = try type(
            """
            \(server[0].lines.dropLast().joined(separator: "\n"))
            begin imsd
            within 10 mat ims status
            \(server[1].commands)
            sed -i 's|^prefixes:|&\\n  - prefix: 198.51.100.0/24|' /etc/imsd/imsd.yaml
            \(server[2].commands)
            has_prefix() { mat ims status | grep -F 198.51.100.0/24; }
            within 10 has_prefix
            mkdir -p /etc/matd
            \(mat[0].commands.replacing(key, with: "$(mat keygen --show /etc/matd/node.key)"))
            cp 192.0.2.10.certificate /etc/matd
            end
            printf '%s\\n' home-addresses: '  - address: 192.0.2.10' '    key: /etc/matd/node.key' \\
                '    certificate: /etc/matd/192.0.2.10.certificate' >/etc/matd/matd.yaml
            \(matd[0].commands)
            begin \(matd[2].commands)
            in_kernel() { nft list table ip mat && ip route show table 6288 | grep default; }
            within 10 in_kernel
            \(matd[1].commands)
            end
            nft list table ip mat >/dev/null
            \(matd[3].commands)
            if nft list table ip mat 2>/dev/null; then exit 1; fi
            """)
        #expect(outcome.status == 0, "\(outcome.output)\(outcome.error)")
        #expect(
            outcome.output.contains("/etc/imsd/imsd.yaml is fine.") && outcome.output.contains("/etc/matd/matd.yaml is fine."), "\(outcome.output)")
        #expect(outcome.output.contains("2.0.192.in-addr.arpa.") && outcome.output.contains("192.0.2.0/24  0 mappings"), "\(outcome.output)")
        #expect(outcome.output.contains("table ip mat {"), "\(outcome.output)")
    }

    @Test("Examples of configurations are such: imsd.yaml(5), matd.yaml(5)")
    func configurations() throws {
        let (servers, nodes) = (try Self.examples("imsd.yaml.5"), try Self.examples("matd.yaml.5"))
        try #require(!servers.isEmpty && !nodes.isEmpty)
        for example in servers { _ = try IMSConfiguration(parsing: example.lines.joined(separator: "\n"), file: "imsd.yaml(5)") }
        for example in nodes { _ = try NodeConfiguration(parsing: example.lines.joined(separator: "\n"), file: "matd.yaml(5)") }
    }

    @Test("A relay without privileges, and how many are bound there: mat-relay(8)")
    func relay() throws {
        let relay = try Self.examples("mat-relay.8")
        try #require(relay.count == 2 && relay[0].lines.last == "mat-relay")
        let outcome = try type(
            """
            ip address add 203.0.113.53/32 dev lo
            \(relay[0].lines.dropLast().joined(separator: "\n"))
            begin mat-relay
            within 10 curl -sf http://127.0.0.1:9290/metrics
            \(relay[1].commands)
            end
            """)
        #expect(outcome.status == 0, "\(outcome.output)\(outcome.error)")
        #expect(outcome.output.contains("mat-relay.yaml is fine.") && outcome.output.contains("mat_relay_bindings"), "\(outcome.output)")
    }

    /// Without an agent there is no more to see than whether the command line is one: 64 says that it is not, 2 that the agent isn't there.
    @Test("What asks an agent is understood: mat(1)")
    func agent() throws {
        let examples = try Self.examples("mat.1").dropFirst()
        let commands = examples.map(\.commands).joined(separator: "\n")
        try #require(commands.contains("mat status") && commands.contains("mat run") && commands.contains("mat attach"))
        let outcome = try type(
            """
            asked=0
            mat() {
                local status=0
                timeout -s KILL 1 "$work/programs/mat" "$@" || status=$?
                asked=$(( asked + 1 ))
                # 137: `--wait` waits. Whoever runs the tests may have SIGTERM blocked, hence SIGKILL.
                [[ $status == 2 || $status == 137 && "$*" == *--wait* ]] || { echo "exit status $status: mat $*" >&2; exit 1; }
            }
            pidof() { echo $$; }
            \(commands)
            echo "asked $asked"
            """)
        #expect(outcome.status == 0, "\(outcome.output)\(outcome.error)")
        let asked = commands.split(separator: "\n").count { $0.hasPrefix("mat ") }
        #expect(outcome.output.hasSuffix("asked \(asked)\n"), "\(outcome.output)")
    }
}
