import MATSignal
import Testing

/// What a row in the table of options does for every reader of messages.
@Suite("The table of options")
struct OptionTableTests {
    /// An option that this version does not know, and one that whoever does not know it must not pass over.
    private static let dummy = OptionKind(rawValue: 0x001E)
    private static let criticalDummy = OptionKind(rawValue: 0x8003)

    private static let table = OptionTable(
        OptionTable.standardOptions + [
            OptionDefinition(dummy, "DUMMY", .steps(from: 20, by: 4, to: 28), .address, reserved: 16..<18),
            OptionDefinition(criticalDummy, "CRITICAL-DUMMY", .exactly(4), isRepeatable: true),
        ], OptionTable.standardMessages)

    private let cookie: [UInt8] = [0, 2, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]
    private let hoa: [UInt8] = [0, 3, 0, 16] + [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 1]
    private let critical: [UInt8] = [0x80, 3, 0, 4, 1, 2, 3, 4]

    private func query(_ options: [UInt8]...) -> [UInt8] {
        let body = options.flatMap { $0 }
        return [3, 0, 1, UInt8((body.count + 8) / 4), 0, 0, 0, 9] + body
    }

    private func dummy(_ value: [UInt8]) -> [UInt8] { [0, 0x1E, 0, UInt8(value.count)] + value }
    private var dummyValue: [UInt8] { [0x20, 1, 0x0D, 0xB8] + [UInt8](repeating: 0, count: 11) + [7] + [0, 0, 9, 9] }

    private func rejection(_ octets: [UInt8], _ table: OptionTable = Self.table) -> SignalDatagram.Rejection? {
        guard case .rejected(let rejection)? = SignalDatagram.decode(octets, table).last else { return nil }
        return rejection
    }

    @Test("An option of the table is read, an unknown one is passed over, an unknown critical one is answered with code 10")
    func known() {
        let octets = query(cookie, hoa, dummy(dummyValue), critical, critical)
        #expect(rejection(octets) == nil)
        #expect(rejection(octets, .standard)?.answerCode == .unsupported)
        #expect(rejection(octets, .standard)?.error.reason == "critical option 0x8003 is unknown")
        #expect(rejection(query(cookie, hoa, dummy(dummyValue)), .standard) == nil)
        #expect(rejection(query(cookie, hoa, dummy([1]) + [0, 0, 0]), .standard) == nil, "what is unknown can't be wrong")
        octets.withUnsafeBytes { octets in
            var view = SignalView(octets, from: 0)
            #expect(view.read(Self.table) == nil && view.has(Self.dummy) && view.has(Self.criticalDummy))
            #expect(view.address(Self.dummy) == IPAddress("2001:db8::7"))
        }
    }

    @Test("What its row says of length, content, reserved octets and repetition is what makes it malformed")
    func malformed() {
        for (value, reason) in [
            ([UInt8](repeating: 0, count: 19) + [0], "DUMMY is ::, which no host can have here"),
            (dummyValue + [1, 2], "DUMMY of 22 octets, not 20 and up to 2 times 4"),
            (Array(dummyValue.dropLast(4)), "DUMMY of 16 octets"),
            (dummyValue + [UInt8](repeating: 1, count: 12), "DUMMY of 32 octets"),
            (Array(dummyValue.prefix(17)) + [1, 0, 0], "DUMMY has reserved octets that are not zero"),
        ] as [([UInt8], String)] {
            let padding = [UInt8](repeating: 0, count: (4 - value.count % 4) % 4)
            let rejection = rejection(query(cookie, hoa, dummy(value) + padding))
            #expect(rejection?.answerCode == .malformed)
            #expect(rejection?.error.reason.hasPrefix(reason) == true, "\(rejection?.error.reason ?? "accepted")")
        }
        #expect(rejection(query(cookie, hoa, dummy(dummyValue + [1, 2, 3, 4]))) == nil)
        #expect(rejection(query(cookie, hoa, dummy(dummyValue), dummy(dummyValue)))?.error.reason == "DUMMY stands twice")
        #expect(rejection(query(cookie, hoa, dummy(dummyValue + [1]) + [0, 0, 1]))?.error.reason == "padding of DUMMY is not zero")
    }

    @Test("Every truncation of a message with it is refused")
    func truncated() {
        let octets = query(cookie, hoa, dummy(dummyValue), critical)
        for count in 0..<octets.count { #expect(rejection(Array(octets.prefix(count))) != nil) }
    }

    @Test("A message whose row asks for it is malformed without it")
    func mandatory() {
        let messages = OptionTable.standardMessages.map { message in
            message.type == .maQuery ? MessageDefinition(.maQuery, message.needs + [Self.dummy]) : message
        }
        let table = OptionTable(Self.table.options, messages)
        #expect(rejection(query(cookie, hoa), table)?.error.reason == "MA Query without DUMMY")
        #expect(rejection(query(cookie, hoa, dummy(dummyValue)), table) == nil)
    }

    @Test("Every option and every message has its row, and no two rows are of one kind")
    func whole() {
        let kinds = OptionTable.standard.options.map(\.kind)
        #expect(Set(kinds).count == kinds.count)
        #expect(OptionTable.standard.messages.map(\.type) == MessageType.allCases)
        for message in OptionTable.standard.messages {
            #expect(message.needs.first == .cookie)
            for kind in message.needs + message.needsWith.values.flatMap({ $0 }) { #expect(kinds.contains(kind)) }
        }
    }
}
