import MATSignal
import Testing

@Suite("SipHash-2-4")
struct SipHashTests {
    /// From the reference implementation's vectors: key 00..0f, message 00..(n-1), output octets in order.
    static let published: [(Int, String)] = [
        (0, "310e0edd47db6f72"), (1, "fd67dc93c539f874"), (2, "5a4fa9d909806c0d"), (3, "2d7efbd796666785"), (4, "b7877127e09427cf"),
        (5, "8da699cd64557618"), (6, "cee3fe586e46c9cb"), (7, "37d1018bf50002ab"), (8, "6224939a79f5f593"), (15, "e545be4961ca29a1"),
        (16, "db9bc2577fcc2a3f"), (63, "724506eb4c328a95"),
    ]

    @Test("The paper's own example: 15 octets give 0xa129ca6149be45e5")
    func paper() throws {
        let hash = try #require(SipHash(key: Array(0..<16)))
        #expect(hash.hash(Array(0..<15)) == 0xa129_ca61_49be_45e5)
    }

    @Test("Numbers give what their octets give: of a server's cookie, and of a client's")
    func numbers() throws {
        let hash = try #require(SipHash(key: Array(3..<19)))
        let octets = (0..<34).map { UInt8($0 * 7 + 1) }
        func number(_ place: Int) -> UInt64 { octets[place..<place + 8].reduce(0) { $0 << 8 | UInt64($1) } }
        #expect(hash.hash(number(0), number(8), number(16), number(24)) == hash.hash(Array(octets[0..<32])))
        let port = UInt16(octets[32]) << 8 | UInt16(octets[33])
        #expect(hash.hash(number(0), number(8), number(16), number(24), port) == hash.hash(octets))
    }

    @Test("The reference's vectors", arguments: published)
    func reference(count: Int, output: String) throws {
        let hash = try #require(SipHash(key: Array(0..<16)))
        let value = hash.hash((0..<count).map { UInt8($0) })
        #expect((0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) } == hex(output))
    }
}
