import Glibc
import MATCore
import MATSignal
import Testing

@testable import MATServer

@Suite("Bindings in a file")
struct BindingFileTests {
    private func address(_ text: String) throws -> IPAddress { try #require(IPAddress(text)) }

    private func bindings() throws -> [SavedBinding] {
        let visitor = SavedBinding(
            prefix: IPPrefix(try address("2001:db8:10::1")), issuer: 0xE4BD_6612_0DC0_C864,
            endpoint: Endpoint(try address("2001:db8:aa::7"), port: 40_002), local: Endpoint(try address("::1"), port: 6290), until: 3, signedAt: 2,
            certificateNotAfter: .max, lifetimeSeconds: 600, cookieTime: 1, clientCookie: .max)
        let resident = SavedBinding(
            prefix: try #require(IPPrefix("192.0.2.16/28")), endpoint: Endpoint(try address("198.51.100.7"), port: 40_001),
            local: Endpoint(try address("203.0.113.1"), port: 6288), until: 1_790_000_120_000, signedAt: 1_790_000_000_000,
            certificateNotAfter: 1_810_000_000_000, lifetimeSeconds: 120, cookieTime: 1_790_000_000, clientCookie: 0xC0FFEE)
        return [resident, visitor]
    }

    @Test("They come back as they were; a line that can't be read is left out, and a file of another kind has none")
    func roundTrip() throws {
        let text = BindingFile.text(try bindings())
        #expect(BindingFile.parse(text) == (try bindings()))
        let lines = text.split(separator: "\n").map(String.init)
        #expect(
            lines[1] == "192.0.2.16/28 198.51.100.7 40001 203.0.113.1 6288 1790000120000 1790000000000 1810000000000 120 1790000000 c0ffee -")
        for damaged in ["", "192.0.2.1", lines[1].replacing("40001", with: "0"), lines[1].replacing("/28", with: "/27"), lines[1] + " 7"] {
            #expect(BindingFile.parse([lines[0], damaged, lines[2]].joined(separator: "\n")) == [try bindings()[1]], "\(damaged)")
        }
        #expect(BindingFile.parse(lines.dropFirst().joined(separator: "\n")).isEmpty)
    }

    @Test("Only its owner may read the file; without one there are no bindings")
    func file() throws {
        let path = "/tmp/bindings-\(getpid())-\(UInt32.random(in: .min ... .max))"
        defer { unlink(path) }
        #expect(try BindingFile.read(path).isEmpty)
        try BindingFile.write(try bindings(), to: path)
        #expect(try BindingFile.read(path) == (try bindings()))
        var status = stat()
        #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
    }
}
