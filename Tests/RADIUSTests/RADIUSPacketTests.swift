import MATSignal
import SeededRandom
import Testing

@testable import RADIUS

func octets(_ hex: String) -> [UInt8] { hex.split(separator: " ").map { UInt8($0, radix: 16) ?? 0 } }

@Suite("RADIUS packets")
struct RADIUSPacketTests {
    // RFC 2865 section 7.1.
    private let request = octets(
        "01 00 00 38 0f 40 3f 94 73 97 80 57 bd 83 d5 cb 98 f4 22 7a 01 06 6e 65 6d 6f 02 12 0d be 70 8d 93 d4 13 ce 31 96 e4 3f 78 2a 0a ee 04 06 c0 a8 01 10 05 06 00 00 00 03"
    )
    private let accept = octets(
        "02 00 00 26 86 fe 22 0e 76 24 ba 2a 10 05 f6 bf 9b 55 e0 b2 06 06 00 00 00 01 0f 06 00 00 00 00 0e 06 c0 a8 01 03")

    private func secret() throws -> RADIUSSecret { try #require(RADIUSSecret(Array("xyzzy5461".utf8))) }

    @Test("The packets of RFC 2865 are read, and written as they were; each shorter one is none")
    func vectors() throws {
        for octets in [request, accept] {
            let packet = try #require(RADIUSPacket(decoding: octets))
            #expect(packet.octets == octets)
            #expect(RADIUSPacket(decoding: octets + [0, 0])?.octets == octets, "what stands behind the length is padding")
            for count in octets.indices { #expect(RADIUSPacket(decoding: Array(octets.prefix(count))) == nil) }
        }
        let packet = try #require(RADIUSPacket(decoding: request))
        #expect(packet.code == .accessRequest && packet.attributes[RADIUSAttribute.Kind.userName]?.text == "nemo")
        #expect(packet.attributes[2].value == [192, 168, 1, 16] && packet.attributes[3].number == 3)
    }

    @Test("An attribute that is shorter than its head, or longer than the packet, makes the packet none")
    func badAttributes() {
        for (place, value) in [(21, UInt8(0)), (21, 1), (21, 7), (23 + 16, 200)] {
            var damaged = request
            damaged[place] = value
            if let packet = RADIUSPacket(decoding: damaged) { #expect(packet.octets == damaged) }
        }
        var short = request
        short[21] = 1
        #expect(RADIUSPacket(decoding: short) == nil)
    }

    @Test("A password is hidden as RFC 2865 has it, and the request's Message-Authenticator stands first")
    func access() throws {
        let given = try #require(RADIUSPacket(decoding: request))
        let made = try secret().accessRequest(
            identifier: 0, authenticator: given.authenticator,
            [RADIUSAttribute(RADIUSAttribute.Kind.userName, text: "nemo"), RADIUSAttribute(RADIUSAttribute.Kind.userPassword, text: "arctangent")])
        let packet = try #require(RADIUSPacket(decoding: made))
        #expect(packet.attributes.map(\.kind) == [80, 1, 2])
        #expect(packet.attributes[2].value == given.attributes[1].value)
        #expect(packet.attributes[0].value.count == 16 && packet.attributes[0].value.contains { $0 != 0 })
        // A password of 16 octets takes one block, of 17 two.
        for (count, blocks) in [(0, 1), (16, 1), (17, 2), (128, 8), (200, 8)] {
            let made = try secret().accessRequest(
                identifier: 1, authenticator: given.authenticator,
                [RADIUSAttribute(RADIUSAttribute.Kind.userPassword, [UInt8](repeating: 65, count: count))])
            #expect(RADIUSPacket(decoding: made)?.attributes[1].value.count == 16 * blocks)
        }
    }

    @Test("An answer counts with the Response Authenticator of this request and a Message-Authenticator that fits; without one it is forged")
    func doubts() throws {
        let secret = try secret()
        let asked = try #require(RADIUSPacket(decoding: request))
        let bare = try #require(RADIUSPacket(decoding: accept))
        #expect(secret.doubt(bare, accept, to: asked.authenticator) == .noMessageAuthenticator)
        #expect(secret.doubt(bare, accept, to: [UInt8](repeating: 1, count: 16)) == .authenticator)
        let good = secret.answer(.accessAccept, to: asked, [RADIUSAttribute(RADIUSAttribute.Kind.sessionTimeout, number: 60)])
        let packet = try #require(RADIUSPacket(decoding: good))
        #expect(secret.doubt(packet, good, to: asked.authenticator) == nil)
        let other = try #require(RADIUSSecret(Array("other".utf8)))
        #expect(other.doubt(packet, good, to: asked.authenticator) == .authenticator)
        // Any octet changed is noticed.
        for place in good.indices {
            var forged = good
            forged[place] ^= 1
            guard let packet = RADIUSPacket(decoding: forged) else { continue }
            #expect(secret.doubt(packet, forged, to: asked.authenticator) != nil || packet.identifier != asked.identifier, "octet \(place)")
        }
        // An Accept made of a Reject with the right Response Authenticator, as the BlastRADIUS attack gets one, lacks the HMAC.
        let forged = secret.answer(.accessAccept, to: asked, [], isSigned: false)
        #expect(secret.doubt(try #require(RADIUSPacket(decoding: forged)), forged, to: asked.authenticator) == .noMessageAuthenticator)
    }

    @Test("Accounting-Requests carry the MD5 that their servers check, and their answers need no Message-Authenticator")
    func accounting() throws {
        let secret = try secret()
        let (octets, authenticator) = secret.accountingRequest(identifier: 9, [RADIUSAttribute(RADIUSAttribute.Kind.accountingStatus, number: 1)])
        let packet = try #require(RADIUSPacket(decoding: octets))
        #expect(packet.authenticator == authenticator && packet.code == .accountingRequest)
        let answer = secret.answer(.accountingResponse, to: packet, [])
        #expect(secret.doubt(try #require(RADIUSPacket(decoding: answer)), answer, to: authenticator) == nil)
    }

    @Test("Addresses of both families and networks have attributes of their own, and a value that is too long is cut off")
    func framed() throws {
        let four = RADIUSAttribute(framed: try #require(IPPrefix("192.0.2.9")))
        #expect(four.kind == 8 && four.value == [192, 0, 2, 9])
        let six = RADIUSAttribute(framed: try #require(IPPrefix("2001:db8::9")))
        #expect(six.kind == 168 && six.value.count == 16)
        let network = RADIUSAttribute(framed: try #require(IPPrefix("2001:db8:10::/48")))
        #expect(network.kind == 97 && network.value.prefix(2) == [0, 48] && network.value.count == 18)
        #expect(RADIUSAttribute(1, [UInt8](repeating: 7, count: 300)).value.count == RADIUSAttribute.valueOctetsMax)
    }
}
