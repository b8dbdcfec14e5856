/// What a datagram holds: one message or several back to back (section 1).
public enum SignalDatagram {
    public static let messagesMax = 16
    public static let octetsMax = 1232
    /// Types from here on are never given (section 2).
    static let firstOctetLimit: UInt8 = 0x40

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
        fileprivate init(error: SignalError, headOf octets: [UInt8], _ start: Int) {
            let end = start + SignalHeader.octetsCount
            guard octets.count >= end, octets[start + 2] & SignalHeader.optionsFlag != 0, octets[start + 3] >= SignalHeader.octetsCount / 4 else {
                self.init(error: error, type: nil, sequence: 0, cookie: nil)
                return
            }
            let sequence = octets[start + 4..<end].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            self.init(
                error: error, type: MessageType(rawValue: octets[start]), sequence: sequence,
                cookie: SignalOptions.cookie(salvagedFrom: octets, end..<octets.count))
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

    public static func decode(_ octets: [UInt8]) -> [Part] {
        guard octets.count <= octetsMax else {
            let error = SignalError.malformed("datagram of \(octets.count) octets, at most \(octetsMax)")
            return [.rejected(Rejection(error: error, type: nil, sequence: 0, cookie: nil))]
        }
        // Section 1: a packet between HoAs, encapsulated (section 11.2), or nothing at all; no message of it is looked at.
        if let first = octets.first, first >= firstOctetLimit {
            let error = SignalError(.unknownType(first), "a datagram that begins with 0x\(String(first, radix: 16)) is not signalling")
            return [.rejected(Rejection(error: error, type: nil, sequence: 0, cookie: nil))]
        }
        var parts: [Part] = []
        var start = 0
        repeat {
            guard parts.count < messagesMax else {
                let error = SignalError.malformed("more than \(messagesMax) messages in a datagram")
                return parts + [.rejected(Rejection(error: error, type: nil, sequence: 0, cookie: nil))]
            }
            var headerReader = SignalReader(octets, start..<octets.count)
            let header: SignalHeader
            do throws(SignalError) {
                header = try SignalHeader(decoding: &headerReader)
            } catch {
                return parts + [.rejected(Rejection(error: error, headOf: octets, start))]
            }
            let body = start + SignalHeader.octetsCount..<start + header.octetsInMessage
            do throws(SignalError) {
                parts.append(try decodeBody(header, octets, body))
            } catch {
                let cookie = header.hasOptions ? SignalOptions.cookie(salvagedFrom: octets, body) : nil
                parts.append(.rejected(Rejection(error: error, type: header.type, sequence: header.sequence, cookie: cookie)))
                // An unknown type or option is well-formed: what follows it can be trusted to start where it says.
                if error.code == .malformed { return parts }
            }
            start += header.octetsInMessage
        } while start < octets.count
        return parts
    }

    private static func decodeBody(_ header: SignalHeader, _ octets: [UInt8], _ range: Range<Int>) throws(SignalError) -> Part {
        // What an unknown type has for a body is not known either, so it can't be malformed.
        guard header.type != nil else { throw SignalError(.unknownType(header.typeNumber), "type \(header.typeNumber) is unknown") }
        var reader = SignalReader(octets, range)
        guard header.hasOptions else { return .draft(try DraftMessage(header, decoding: &reader)) }
        let options = try SignalOptions(decoding: &reader)
        return .message(try SignalMessage(header, options), octetsCount: header.octetsInMessage)
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
