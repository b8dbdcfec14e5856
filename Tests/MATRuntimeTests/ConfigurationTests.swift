import Glibc
import MATSignal
import Testing

@testable import MATRuntime

@Suite("A configuration file")
struct ConfigurationTests {
    private enum Level: String, CaseIterable { case error, notice, debug }

    /// The messages of everything found wrong after `read` has looked at the text.
    private func problems(_ text: String, _ read: (ConfigurationSection) -> Void) -> [String] {
        do throws(ConfigurationError) {
            let file = try ConfigurationFile.parse(text, file: "imsd.yaml")
            read(file)
            try file.finish()
            return []
        } catch {
            return error.problems.map(\.description)
        }
    }

    @Test("Every kind of value is read as what it is")
    func values() throws {
        let file = try ConfigurationFile.parse(
            """
            name: ims1          # a comment
            port: 6288
            push: yes
            lifetime: 600
            retry: 250ms
            poll: 1.5m
            address: 2001:db8::1
            hoa: 192.0.2.1
            prefix: 192.0.2.0/24
            resolver: "[2001:db8::53]:5353"
            level: debug
            store: /var/lib/mat/ims.db
            peers: [192.0.2.7, 2001:db8::7]
            prefixes:
              - prefix: 2001:db8:1::/48
                owner: a
              - prefix: 198.51.100.0/24
            limits:
              updates: 5
            """, file: "imsd.yaml")
        #expect(file.value("name", .string) == "ims1")
        #expect(file.value("port", .port) == 6288)
        #expect(file.value("push", .bool) == true)
        #expect(file.value("lifetime", .duration()) == .seconds(600))
        #expect(file.value("retry", .duration()) == .milliseconds(250))
        #expect(file.value("poll", .duration()) == .seconds(90))
        #expect(file.value("address", .address) == IPAddress("2001:db8::1"))
        #expect(file.required("hoa", .homeAddress) == HomeAddress("192.0.2.1"))
        #expect(file.value("prefix", .prefix)?.length == 120)
        #expect(file.value("resolver", .endpoint(defaultPort: 53))?.port == 5353)
        #expect(file.value("level", .word, default: Level.notice) == .debug)
        #expect(file.value("store", .path) == "/var/lib/mat/ims.db")
        #expect(file.list("peers", .address) == [IPAddress("192.0.2.7"), IPAddress("2001:db8::7")])
        let prefixes = file.sections("prefixes")
        #expect(prefixes.map { $0.required("prefix", .prefix) } == [IPPrefix("2001:db8:1::/48"), IPPrefix("198.51.100.0/24")])
        #expect(prefixes.map { $0.value("owner", .string, default: "-") } == ["a", "-"])
        #expect(file.section("limits").value("updates", .int(in: 1...100), default: 1) == 5)
        try file.finish()
    }

    @Test("Absent keys and sections yield their defaults")
    func defaults() throws {
        let file = try ConfigurationFile.parse("limits:\n  # updates: 5\n", file: "imsd.yaml")
        #expect(file.value("port", .port, default: 6288) == 6288)
        #expect(file.section("limits").value("updates", .int(), default: 5) == 5)
        #expect(file.section("absent").value("updates", .int(), default: 5) == 5)
        #expect(!file.section("absent").isPresent)
        #expect(file.list("peers", .address, default: [.unspecifiedIPv4]) == [.unspecifiedIPv4])
        #expect(file.sections("prefixes").isEmpty)
        try file.finish()
        try ConfigurationFile.parse("# nothing\n", file: "imsd.yaml").finish()
    }

    @Test("A message names file, line, key, mistake and remedy")
    func message() {
        let found = problems("port: 1\nprefixes:\n  - prefix: 192.0.2.1/24\n") {
            _ = $0.value("port", .port)
            for section in $0.sections("prefixes") { _ = section.required("prefix", .prefix) }
        }
        #expect(
            found == [
                #"imsd.yaml:3: prefixes[0].prefix: "192.0.2.1/24" has bits set beyond the prefix length; write 192.0.2.0/24"#
            ])
    }

    @Test("All mistakes are reported in one run, in the order of the lines")
    func allAtOnce() {
        let found = problems(
            """
            port: 70000
            lifetme: 600
            level: debgu
            poll: fast
            hoa: 127.0.0.1
            peers:
              - 192.0.2.7
              - 192.0.2.700
            limits: 7
            empty:
            """
        ) {
            _ = $0.value("port", .port)
            _ = $0.value("lifetime", .duration())
            _ = $0.value("level", ConfigurationKind<Level>.word)
            _ = $0.value("poll", .duration())
            _ = $0.required("hoa", .homeAddress)
            _ = $0.list("peers", .address)
            _ = $0.section("limits").value("updates", .int())
            _ = $0.value("empty", .string)
            _ = $0.required("store", .path)
        }
        #expect(
            found == [
                #"imsd.yaml:1: port: "70000" is not a port; write a number from 1 to 65535"#,
                "imsd.yaml:1: store: is missing; add store: to the file",
                "imsd.yaml:2: lifetme: unknown key; did you mean lifetime?",
                #"imsd.yaml:3: level: "debgu" is not a known word; did you mean debug?"#,
                #"imsd.yaml:4: poll: "fast" is not a duration; write it as in 250ms, 30s, 5m, 2h or 7d; a plain number means seconds"#,
                #"imsd.yaml:5: hoa: "127.0.0.1" can't be a home address; write a unicast address that is not loopback or link-local"#,
                #"imsd.yaml:8: peers[1]: "192.0.2.700" is not an IP address; write it as in 192.0.2.1 or 2001:db8::1"#,
                "imsd.yaml:9: limits: a section is expected; indent its keys under limits:",
                "imsd.yaml:10: empty: has no value; give one or remove the line",
            ])
    }

    @Test("Ranges of numbers and durations are held and named")
    func ranges() {
        let found = problems("tries: 9\npoll: 10ms\nbad: -5s\n") {
            _ = $0.value("tries", .int(in: 1...5))
            _ = $0.value("poll", .duration(in: .seconds(1) ... .seconds(3600)))
            _ = $0.value("bad", .duration())
        }
        #expect(found.count == 3)
        #expect(found.first == #"imsd.yaml:1: tries: "9" is out of range; write a whole number from 1 to 5"#)
        #expect(found.dropFirst().first == #"imsd.yaml:2: poll: "10ms" is out of range; write a duration from 1s to 1h"#)
    }

    @Test("A key given twice, broken YAML and a file that isn't a mapping are errors with their line")
    func notReadable() {
        #expect(
            problems("a: 1\nport: 1\nport: 2\n") { _ in } == [
                "imsd.yaml:2: port is given more than once in this section; keep one of them"
            ])
        #expect(problems("a: 1\nb: [1, 2\n") { _ in }.first?.hasPrefix("imsd.yaml:3: ") == true)
        let remedy = "check indentation, colons and quotes here"
        #expect(
            problems("---\na: 1\n---\nb: 2\n") { _ in } == [
                "imsd.yaml:3: expected a single document in the stream, but found another document (column 1); \(remedy)"
            ])
        #expect(
            problems("a: b\n\tc: 2\n") { _ in } == [
                "imsd.yaml:2: found a tab character that violates indentation while scanning a plain scalar (column 1); \(remedy)"
            ])
        let deep = problems("a: " + String(repeating: "[", count: 50_000)) { _ in }
        #expect(deep.first?.hasPrefix("imsd.yaml:1: sections or lists are nested too deeply (column") == true)
        #expect(problems("- a\n- b\n") { _ in } == ["imsd.yaml:1: the file must consist of keys and values; write key: value"])
    }

    /// Ten levels, each of ten of the level before.
    private let levels = (1...10).map { level in
        "&l\(level) [\(Array(repeating: level == 1 ? "x" : "*l\(level - 1)", count: 10).joined(separator: ", "))]"
    }

    @Test(
        "Aliases that make a few lines into more than anybody could read are refused at once, as keys and as values",
        arguments: [
            "k: [LEVELS]\n*l10 : v\n", "k: [LEVELS]\n? *l10\n: v\n", "k: [LEVELS]\n? [*l10]\n: v\n", "k: [LEVELS]\n[*l10, a]: v\n",
            "? [LEVELS]\n: v\n",
            "k: [LEVELS]\nm: {*l10}\n", "k: [LEVELS]\nm: { a: 1,\n *l10 }\n", "k: [LEVELS]\nm: {{a: *l10}, b}\n", "k: [LEVELS, *l10:v]\n",
            "k: [LEVELS, *l10 :v]\n", "k: [LEVELS]\nm: {\"a\":*l10}\nn: {?*l10}\n", "k: [LEVELS]\n\"a\": *l10\n",
        ])
    func aliasedBeyondReading(_ text: String) {
        let began = SystemClock.now().monotonic
        let found = problems(text.replacing("LEVELS", with: levels.joined(separator: ", "))) { _ = $0.value("k", .string) }
        #expect(found.count == 1, "\(found)")
        let reasons = ["a key is not a plain word; write key: value", "aliases make more than 1048576 values of it; write out what is meant"]
        #expect(reasons.contains { found.first?.hasSuffix($0) == true }, "\(found)")
        #expect(SystemClock.now().monotonic - began < .seconds(2))
    }

    @Test("Aliases in one another are refused where they would take the stack")
    func aliasedTooDeeply() {
        let chain = (1...30_000).map { "- &a\($0) [*a\($0 - 1)]" }.joined(separator: "\n")
        #expect(
            problems("k:\n- &a0 [x]\n\(chain)\n") { _ = $0.list("k", .string) }
                == ["imsd.yaml:1002: sections or lists are nested too deeply, by aliases; write out what is meant"])
    }

    @Test("Aliases stand for what is written once, in values and as words in keys")
    func aliases() throws {
        let file = try ConfigurationFile.parse(
            """
            # *none and &none are no aliases in a comment: *none
            peers: &peers [&first 192.0.2.7, "2001:db8::7"]
            others: *peers
            more: [*first, "*first", *first]
            &word level: debug
            limits: {*word : 5, name: a *word b}
            """, file: "imsd.yaml")
        #expect(file.list("others", .address) == file.list("peers", .address) && file.list("peers", .address).count == 2)
        #expect(file.list("more", .string) == ["192.0.2.7", "*first", "192.0.2.7"])
        #expect(file.value("level", .word, default: Level.notice) == .debug)
        let limits = file.section("limits")
        #expect(limits.value("level", .int()) == 5 && limits.value("name", .string) == "a *word b")
        try file.finish()
        #expect(
            problems("a: *gone\n") { _ in } == ["imsd.yaml:1: found undefined alias (column 4); check indentation, colons and quotes here"])
        #expect(
            problems("a: &a b\n*a : 1\n*a : 2\n") { _ in }.first?.contains("is given more than once in this section") == true)
    }

    @Test("A missing file and one beyond the size bound are refused in words")
    func files() {
        let path = "/tmp/mat-configuration-\(getpid()).yaml"
        defer { unlink(path) }
        #expect(throws: ConfigurationError.self) { try ConfigurationFile.read(path: path) }
        let descriptor = open(path, O_CREAT | O_WRONLY, 0o600)
        let text = [UInt8](repeating: 35, count: ConfigurationFile.fileBytesMax + 1)
        #expect(write(descriptor, text, text.count) == text.count)
        close(descriptor)
        #expect(throws: ConfigurationError.self) { try ConfigurationFile.read(path: path) }
        truncate(path, 10)
        #expect(throws: Never.self) { try ConfigurationFile.read(path: path).finish() }
    }

    @Test("A problem the program finds itself gets the key's line")
    func ownChecks() {
        #expect(
            problems("a: 1\nb: 2\n") {
                _ = $0.value("a", .int())
                _ = $0.value("b", .int())
                $0.reject("b", "contradicts a", "make them equal")
            } == ["imsd.yaml:2: b: contradicts a; make them equal"])
    }
}
