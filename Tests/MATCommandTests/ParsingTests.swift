import MATSignal
import Testing

@testable import MATCommand

@Suite("mat's arguments")
struct ParsingTests {
    @Test("Each subcommand is found and reads its arguments")
    func commands() throws {
        let status = try #require(
            try MatCommand.parseAsRoot(["status", "--wait", "20", "--json", "--control", "/x"]) as? StatusCommand)
        #expect(status.wait == 20 && status.output.json && status.control.path == "/x")
        let enrol = try #require(
            try MatCommand.parseAsRoot([
                "enrol", "2001:db8::1", "--public-key", Base64.write(Array(repeating: 7, count: 32)), "--lifetime", "365d",
            ])
                as? EnrolCommand)
        #expect(enrol.home == IPPrefix("2001:db8::1") && enrol.lifetime == .seconds(365 * 86_400))
        #expect(enrol.control.path == "/run/imsd/control.sock")
        let lookup = try #require(
            try MatCommand.parseAsRoot(["lookup", "192.0.2.1", "--resolver", "192.0.2.53", "--resolver", "[::1]:5353"])
                as? LookupCommand)
        #expect(lookup.resolver.map(\.description) == ["192.0.2.53:53", "[::1]:5353"])
        #expect(try MatCommand.parseAsRoot(["handover", "--auto"]) is HandoverCommand)
        #expect(try MatCommand.parseAsRoot(["ims", "list", "--count", "5"]) is IMSCommand.List)
    }

    @Test("An address that stands in a configuration's comments only is an example, not one that the node has")
    func configuredAddresses() throws {
        let hoas = try ["192.0.2.10", "2001:db8:10::10"].map { HomeAddress(try #require(IPAddress($0))) }
        let packaged = "# home-addresses:\n#   - address: \"192.0.2.10\"\n  # - address: \"2001:db8:10::10\"\n"
        #expect(!JoinFiles.lists(hoas, in: packaged))
        let one = packaged + "home-addresses:\n  - address: \"192.0.2.10\"\n"
        #expect(!JoinFiles.lists(hoas, in: one) && JoinFiles.lists([hoas[0]], in: one))
        #expect(JoinFiles.lists(hoas, in: one + "  - address: \"2001:db8:10::10\"  # home\n"))
        // As an editor of another system ends lines.
        #expect(JoinFiles.lists([hoas[0]], in: one.replacing("\n", with: "\r\n")))
    }

    @Test(
        "Which home addresses a configuration has is read as matd reads it",
        arguments: [
            ("home-addresses:\n  - address: 192.0.2.10\n", true),
            ("home-addresses:\n  - address: '192.0.2.10' # \"192.0.2.11\"\n", true),
            ("home-addresses:\n  - key: /etc/matd/node.key\n    address: 192.0.2.10 # mine\n", true),
            ("home-addresses: [{address: 192.0.2.10, key: /k, certificate: /c}]\n", true),
            // Another address's tail, and its head.
            ("home-addresses:\n  - address: \"1.192.0.2.10\"\n", false), ("home-addresses:\n  - address: \"192.0.2.100\"\n", false),
            // A comment behind another, another key, a fault.
            ("home-addresses:\n  - address: 192.0.2.9 # not \"192.0.2.10\"\n", false),
            ("dns:\n  resolvers: [\"192.0.2.10\"]\n", false), ("home-addresses: [\n  - address: \"192.0.2.10\"\n", false),
        ])
    func listedAddresses(_ text: String, _ isListed: Bool) throws {
        #expect(JoinFiles.lists([HomeAddress(try #require(IPAddress("192.0.2.10")))], in: text) == isListed)
        let shorter = HomeAddress(try #require(IPAddress("2.0.2.10")))
        #expect(!JoinFiles.lists([shorter], in: text))
    }

    @Test("A matd.yaml that holds nothing but comments is the package's, into which `mat join` may write")
    func comments() {
        for text in ["", "\n\n", "# one\n  # two\n\n#three"] { #expect(JoinFiles.saysNothing(text)) }
        for text in ["a: b", "# one\nhome-addresses:\n", "  - x"] { #expect(!JoinFiles.saysNothing(text)) }
    }

    @Test("Leaving takes away what joining wrote into matd.yaml, and leaves what was there before, be it the package's comments or an operator's")
    func leaving() throws {
        let files = JoinFiles(directory: "/etc/matd")
        let begun = files.yaml([HomeAddress(try #require(IPAddress("192.0.2.1"))), HomeAddress(try #require(IPAddress("2001:db8::1")))])
        let comments = "# The addresses that stay\n#traffic: everything\n"
        #expect(JoinFiles.left(of: begun, begun: begun) == nil)
        #expect(JoinFiles.left(of: begun + "control-group: mat\n", begun: begun) == nil)
        #expect(JoinFiles.left(of: begun + "\n" + comments, begun: begun) == comments)
        #expect(JoinFiles.left(of: "", begun: begun) == nil)
        for own in ["log-level: debug\n", "traffic: nothing\n" + begun] { #expect(JoinFiles.left(of: own, begun: begun) == own) }
    }

    @Test("What joining did is read again as it was written; a token alone, as versions before wrote it, counts for all that is there")
    func joinRecord() throws {
        let token = JoinToken(
            host: "192.0.2.53", id: TokenID(rawValue: 7), secret: try #require(TokenSecret([UInt8](repeating: 1, count: 32))),
            server: try #require(SigningKey(seed: [UInt8](repeating: 2, count: 32))).publicKey)
        for homes in [[], [HomeAddress(try #require(IPAddress("192.0.2.1"))), HomeAddress(try #require(IPAddress("2001:db8::1")))]] {
            for madeKey in [true, false] {
                // With nothing to say it is as before; so is who made the key then.
                if homes.isEmpty, !madeKey { continue }
                let record = JoinRecord(token: token, homes: homes, madeKey: madeKey)
                #expect(try JoinRecord.parse(record.write()) == record)
            }
        }
        #expect(try JoinRecord.parse(token.text + "\n") == JoinRecord(token: token, homes: nil, madeKey: true))
        #expect(throws: JoinToken.Malformed.self) { try JoinRecord.parse("home 192.0.2.1\n") }
    }

    @Test(
        "What makes no sense is refused before anything is done",
        arguments: [
            ["handover", "wlan0", "--auto"], ["status", "--wait", "-1"], ["ims", "list", "--count", "0"],
            ["keygen", "--show", "/x", "--force"],
            ["zone", "--config", "/x", "--prefix", "192.0.2.0/24", "--target", "a.example"],
            ["zone", "--prefix", "192.0.2.1/24", "--target", "a.example"], ["zone", "--config", "/x", "--target", "ims1"],
            ["zone", "--config", "/x", "--target", "a b.example"],
            ["lookup", "fe80::1"], ["nonsense"],
        ])
    func refused(arguments: [String]) {
        #expect(throws: (any Error).self) { try MatCommand.parseAsRoot(arguments) }
    }
}
