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

    @Test("A matd.yaml that holds nothing but comments is the package's, into which `mat join` may write")
    func comments() {
        for text in ["", "\n\n", "# one\n  # two\n\n#three"] { #expect(JoinFiles.saysNothing(text)) }
        for text in ["a: b", "# one\nhome-addresses:\n", "  - x"] { #expect(!JoinFiles.saysNothing(text)) }
    }

    @Test(
        "What makes no sense is refused before anything is done",
        arguments: [
            ["handover", "wlan0", "--auto"], ["status", "--wait", "-1"], ["ims", "list", "--count", "0"],
            ["keygen", "--show", "/x", "--force"],
            ["zone", "--config", "/x", "--prefix", "192.0.2.0/24", "--target", "a"],
            ["zone", "--prefix", "192.0.2.1/24", "--target", "a"],
            ["lookup", "fe80::1"], ["nonsense"],
        ])
    func refused(arguments: [String]) {
        #expect(throws: (any Error).self) { try MatCommand.parseAsRoot(arguments) }
    }
}
