import MATSignal
import Testing

/// Section 2's list of what makes a message malformed, one by one, and what a receiver answers.
@Suite("Malformed messages")
struct MalformedMessageTests {
    private let cookie: [UInt8] = [0, 2, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]
    private let hoa: [UInt8] = [0, 3, 0, 16] + [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 1]

    private func message(type: UInt8 = 3, _ options: [UInt8]...) -> [UInt8] {
        let body = options.flatMap { $0 }
        return [type, 0, 1, UInt8((body.count + 8) / 4), 0, 0, 0, 9] + body
    }

    private func rejection(_ octets: [UInt8]) -> SignalDatagram.Rejection? {
        guard case .rejected(let rejection)? = SignalDatagram.decode(octets).last else { return nil }
        return rejection
    }

    @Test("A plain query is fine")
    func fine() {
        #expect(rejection(message(cookie, hoa)) == nil)
    }

    @Test("A missing or repeated option is answered with code 3, naming the option")
    func missingAndRepeated() {
        let missing = rejection(message(cookie))
        #expect(missing?.answerCode == .malformed)
        #expect(missing?.error.description.contains("HOA") == true)
        #expect(missing?.sequence == 9)
        #expect(rejection(message(cookie, hoa, hoa))?.answerCode == .malformed)
        #expect(rejection(message(hoa))?.answerCode == nil, "without a cookie there is no answer")
    }

    @Test(
        "Addresses that name no host are malformed",
        arguments: ["0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1", "169.254.1.1", "::", "::1", "fe80::1", "ff02::1"])
    func badAddresses(text: String) throws {
        let address = try #require(IPAddress(text))
        #expect(rejection(message(cookie, [0, 3, 0, 16] + address.octets))?.answerCode == .malformed)
    }

    @Test("Padding and reserved octets must be zero")
    func padding() {
        #expect(rejection(message(cookie, hoa, [0, 15, 0, 1, 65, 0, 0, 0])) == nil)
        #expect(rejection(message(cookie, hoa, [0, 15, 0, 1, 65, 0, 0, 1]))?.answerCode == .malformed)
        #expect(rejection(message(cookie, hoa, [0, 1, 0, 4, 0, 0, 0, 1]))?.answerCode == .malformed)
    }

    @Test("An unknown critical option is answered with code 10, an unknown other one is skipped")
    func unknownOptions() {
        #expect(rejection(message(cookie, hoa, [0x80, 1, 0, 0]))?.answerCode == .unsupported)
        #expect(rejection(message(cookie, hoa, [0x70, 1, 0, 3, 9, 9, 9, 0])) == nil)
    }

    @Test("A malformed message ends its datagram, an unknown type does not")
    func restOfDatagram() {
        let good = message(cookie, hoa)
        let bad = message(cookie)
        #expect(SignalDatagram.decode(good + bad + good).count == 2)
        #expect(SignalDatagram.decode(good + message(type: 99, cookie) + good).count == 3)
        #expect(SignalDatagram.decode(Array(repeating: message(cookie), count: 1).flatMap { $0 } + good).count == 1)
        #expect(SignalDatagram.decode(Array(repeating: good, count: 17).flatMap { $0 }).count == 17)
        #expect(rejection(Array(repeating: good, count: 17).flatMap { $0 }) != nil)
    }

    @Test("Packing keeps to 16 messages and 1232 octets")
    func packing() throws {
        let hoa = try #require(HomeAddress("192.0.2.1"))
        let small = SignalMessage(sequence: 1, .maQuery(MAQuery(cookie: Cookie(client: 1), hoa: hoa)))
        let packed = SignalDatagram.pack(Array(repeating: small, count: 40))
        #expect(packed.map { SignalDatagram.decode($0).count } == [16, 16, 8])
        let big = SignalMessage(sequence: 1, .maQuery(MAQuery(cookie: Cookie(client: 1), hoa: hoa, padding: 900)))
        #expect(SignalDatagram.pack([big, big, small]).map(\.count) == [944, 984])
    }
}
