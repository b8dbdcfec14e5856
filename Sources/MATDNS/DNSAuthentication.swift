import MATSignal

/// What one answer says about DNSSEC, for people who look into why answers are not believed: `DNSMessage.decodeAnswer` asks for less.
package struct DNSAuthentication: Hashable, Sendable {
    /// 0 no error, 2 SERVFAIL, 3 NXDOMAIN.
    package var code: UInt8
    /// The AD flag: the server has validated it.
    package var isAuthenticated: Bool
    /// Signatures came along, of the records or of their absence.
    package var hasSignatures: Bool
    /// What the server says of why (RFC 8914).
    package var reasons: [String]

    package init(code: UInt8, isAuthenticated: Bool = false, hasSignatures: Bool = false, reasons: [String] = []) {
        self.code = code
        self.isAuthenticated = isAuthenticated
        self.hasSignatures = hasSignatures
        self.reasons = reasons
    }

    /// - Returns: `nil` if it is no answer to that query.
    package init?(decoding octets: [UInt8], to question: DNSQuestion, query: [UInt8]) {
        let questionEnd = DNSMessage.headerOctets + question.name.wire.count + 4
        guard DNSMessage.isAnswer(octets, to: query, questionEnd: questionEnd), let packet = LDNSPacket(decoding: octets) else { return nil }
        let records = packet.records(.answer) + packet.records(.authority)
        self.init(
            code: octets[3] & 0x0F, isAuthenticated: octets[3] & 0x20 != 0, hasSignatures: records.contains { $0.type == .rrsig },
            reasons: Self.reasons(packet.extensions))
    }

    /// The option's number, and words for its codes that have to do with DNSSEC (RFC 8914 section 4).
    private static let extendedError: UInt16 = 15
    private static let words: [UInt16: String] = [
        1: "unsupported DNSKEY algorithm", 2: "unsupported DS digest", 5: "DNSSEC indeterminate", 6: "DNSSEC bogus", 7: "signature expired",
        8: "signature not yet valid", 9: "DNSKEY missing", 10: "RRSIGs missing", 11: "no zone key bit", 12: "NSEC missing",
    ]

    private static func reasons(_ extensions: [UInt8]) -> [String] {
        var (rest, found) = (extensions[...], [String]())
        while rest.count >= 4 {
            let code = UInt16(rest[rest.startIndex]) << 8 | UInt16(rest[rest.startIndex + 1])
            let length = Int(rest[rest.startIndex + 2]) << 8 | Int(rest[rest.startIndex + 3])
            rest = rest.dropFirst(4)
            let data = rest.prefix(length)
            rest = rest.dropFirst(length)
            guard code == extendedError, data.count >= 2 else { continue }
            let number = UInt16(data[data.startIndex]) << 8 | UInt16(data[data.startIndex + 1])
            let text = String(decoding: data.dropFirst(2).prefix(200), as: UTF8.self).printable
            found.append([words[number] ?? "error \(number)", text].filter { !$0.isEmpty }.joined(separator: ": "))
        }
        return found
    }
}
