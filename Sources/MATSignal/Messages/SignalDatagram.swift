/// What a datagram holds: one message or several back to back (section 1).
public enum SignalDatagram {
    public static let messagesMax = 16
    public static let octetsMax = 1232
    /// Types from here on are never given (section 2).
    public static let firstOctetLimit: UInt8 = 0x40

    /// One step of reading a datagram.
    public enum Part: Hashable, Sendable {
        case message(SignalMessage, octetsCount: Int)
        /// A draft message (X=0), for the servers that answer such.
        case draft(DraftMessage)
        /// What can't be read. After a malformed message the rest of the datagram is not looked at.
        case rejected(Rejection)
    }

    /// A message that could not be decoded, with what an answer needs.
    public struct Rejection: Hashable, Sendable {
        public let error: SignalError
        /// `nil` if not even the header could be read or the type is unknown.
        public let type: MessageType?
        public let sequence: UInt32
        public let cookie: Cookie?

        init(error: SignalError, type: MessageType?, sequence: UInt32, cookie: Cookie?) {
            self.error = error
            self.type = type
            self.sequence = sequence
            self.cookie = cookie
        }

        /// Of a message whose length is wrong. Its request may still be answered, if type, sequence and cookie stand where they belong.
        fileprivate init(error: SignalError, headOf datagram: UnsafeRawBufferPointer, _ start: Int) {
            let octets = OctetView(datagram).part(start..<max(start, datagram.count))
            guard octets.count >= SignalHeader.octetsCount, octets.uint8(at: 2) & SignalHeader.optionsFlag != 0,
                octets.uint8(at: 3) >= SignalHeader.octetsCount / 4
            else {
                self.init(error: error, type: nil, sequence: 0, cookie: nil)
                return
            }
            self.init(
                error: error, type: MessageType(rawValue: octets.uint8(at: 0)), sequence: octets.uint32(at: 4),
                cookie: SignalView.salvagedCookie(octets.part(SignalHeader.octetsCount..<octets.count)))
        }

        /// The answer that section 2 wants for it: code 3, or 10 for an unknown critical option; `nil` if it gets none.
        public var answerCode: ResponseCode? {
            guard let type, type.isRequest, cookie != nil else { return nil }
            switch error.code {
            case .malformed: return .malformed
            case .unsupportedOption: return .unsupported
            case .unknownType, .draftBody: return nil
            }
        }
    }

    /// - Parameters:
    ///   - table: the grammar; the protocol's unless a test has another.
    ///   - isInPath: whether it came inside an encapsulated packet; zero octets behind its messages are then no messages, but fill the packet
    ///     to see whether one so large arrives (section 11.2).
    public static func decode(_ octets: [UInt8], _ table: OptionTable = .standard, isInPath: Bool = false) -> [Part] {
        guard octets.count <= octetsMax || isInPath else {
            let error = SignalError.malformed("datagram of \(octets.count) octets, at most \(octetsMax)")
            return [.rejected(Rejection(error: error, type: nil, sequence: 0, cookie: nil))]
        }
        // Section 1: a packet between HoAs, encapsulated (section 11.2), or nothing at all; no message of it is looked at.
        if let first = octets.first, first >= firstOctetLimit {
            let error = SignalError(.unknownType(first), "a datagram that begins with 0x\(String(first, radix: 16)) is not signalling")
            return [.rejected(Rejection(error: error, type: nil, sequence: 0, cookie: nil))]
        }
        return octets.withUnsafeBytes { decode($0, table, isInPath: isInPath) }
    }

    private static func decode(_ datagram: UnsafeRawBufferPointer, _ table: OptionTable, isInPath: Bool) -> [Part] {
        var parts: [Part] = []
        var start = 0
        repeat {
            guard parts.count < messagesMax else {
                let error = SignalError.malformed("more than \(messagesMax) messages in a datagram")
                return parts + [.rejected(Rejection(error: error, type: nil, sequence: 0, cookie: nil))]
            }
            var view = SignalView(datagram, from: start)
            guard !view.isEmpty else {
                let error = SignalView.lengthFault(datagram, from: start).error(in: nil, table)
                return parts + [.rejected(Rejection(error: error, headOf: datagram, start))]
            }
            do throws(SignalError) {
                parts.append(try decode(&view, table))
            } catch {
                let cookie = view.hasOptions ? view.salvagedCookie : nil
                parts.append(.rejected(Rejection(error: error, type: view.type, sequence: view.sequence, cookie: cookie)))
                // An unknown type or option is well-formed: what follows it can be trusted to start where it says.
                if error.code == .malformed { return parts }
            }
            start += view.octetsCount
            if isInPath, OctetView(datagram).isZero(start..<datagram.count) { break }
        } while start < datagram.count
        return parts
    }

    private static func decode(_ view: inout SignalView, _ table: OptionTable) throws(SignalError) -> Part {
        // What an unknown type has for a body is not known either, so it can't be malformed.
        guard let type = view.type else { throw SignalError(.unknownType(view.typeNumber), "type \(view.typeNumber) is unknown") }
        guard view.hasOptions else { return .draft(try DraftMessage(type, view)) }
        if let fault = view.read(table) { throw fault.error(in: type, table) }
        guard let message = SignalMessage(type, view) else { throw .malformed("\(type) without an option that it consists of") }
        return .message(message, octetsCount: view.octetsCount)
    }

    /// An in-path message that fills a payload of so many octets; of its own size if that is larger.
    public static func fill(_ octetsCount: Int, with message: SignalMessage) -> [UInt8] {
        let octets = message.octets
        return octets + [UInt8](repeating: 0, count: max(0, octetsCount - octets.count))
    }

    /// Packs messages into as few datagrams as the limits allow, in order.
    public static func pack(_ messages: [SignalMessage]) -> [[UInt8]] {
        var datagrams: [[UInt8]] = []
        var current: [UInt8] = []
        var count = 0
        for message in messages {
            let octets = message.octets
            if count > 0, count == messagesMax || current.count + octets.count > octetsMax {
                datagrams.append(current)
                current = []
                count = 0
            }
            current += octets
            count += 1
        }
        if count > 0 { datagrams.append(current) }
        return datagrams
    }
}
