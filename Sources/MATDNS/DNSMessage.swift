import CLDNS
import MATCore
import MATSignal

/// Queries and answers as octets. libldns is the codec and nothing else: its objects live within one call here, and what
/// comes out are values.
package enum DNSMessage {
    /// Announced with EDNS0; also what our own protocol takes for safe from fragmentation.
    static let udpPayloadBytesMax: UInt16 = 1232
    static let headerOctets = 12
    /// CNAMEs followed from one name.
    static let aliasesMax = 8
    static let endlessAliases = DNSFailure.malformed("its aliases go round or on for too long")
    /// Positive answers are kept no longer (protocol.md section 8).
    static let ttlMax = Duration.seconds(3600)
    /// Absence is remembered no longer (section 7).
    static let absenceTTLMax = Duration.seconds(300)
    /// For an absence that came without the SOA which says how long it lasts, where it counts all the same.
    static let absenceTTLWithoutSOA = Duration.seconds(5)

    /// What an answer amounts to for the resolver.
    package enum Reading: Equatable {
        /// Not an answer to this query: to be ignored, the real one may still come.
        case notOurs
        case truncated
        case result(DNSResult)
        /// Another server may do better.
        case serverFailed(DNSFailure)
    }

    // MARK: Encode

    /// - Parameters:
    ///   - edns: without it for servers that don't know EDNS0.
    ///   - isUnchecked: asks for the answer also if its signatures do not verify (the CD flag, RFC 4035 section 3.2.2).
    ///   - wantsSignatures: asks for signatures among the records (the DO flag), which only somebody who looks into DNSSEC has a use for.
    /// - Returns: `nil` if libldns is out of memory.
    package static func encodeQuery(
        _ question: DNSQuestion, id: UInt16, edns: Bool = true, isUnchecked: Bool = false, wantsSignatures: Bool = false
    ) -> [UInt8]? {
        guard let packet = LDNSPacket(question: question) else { return nil }
        return packet.encode(id: id, edns: edns, isUnchecked: isUnchecked, wantsSignatures: wantsSignatures)
    }

    // MARK: Decode

    /// - Parameters:
    ///   - query: the octets that were sent, whose identifier and question the answer must repeat.
    ///   - trustsAuthentication: whether the AD flag of this server means anything.
    package static func decodeAnswer(
        _ octets: [UInt8], to question: DNSQuestion, query: [UInt8], now: MonotonicTime, trustsAuthentication: Bool
    ) -> Reading {
        // Checked on the bare octets: what an off-path attacker sends does not get as far as the C parser without the right
        // identifier, port and question.
        let questionEnd = headerOctets + question.name.wire.count + 4
        guard isAnswer(octets, to: query, questionEnd: questionEnd) else { return .notOurs }
        if octets[2] & 0x02 != 0 { return .truncated }
        let code = octets[3] & 0x0F
        guard code == 0 || code == 3 else { return .serverFailed(.refused(code: code)) }
        guard let packet = LDNSPacket(decoding: octets) else { return .serverFailed(.malformed("it is malformed")) }
        let isAuthenticated = trustsAuthentication && octets[3] & 0x20 != 0
        return read(packet.records(.answer), packet.records(.authority), question, isNameAbsent: code == 3, isAuthenticated, now)
    }

    static func isAnswer(_ octets: [UInt8], to query: [UInt8], questionEnd: Int) -> Bool {
        octets.count >= questionEnd && query.count >= questionEnd && octets[0] == query[0] && octets[1] == query[1]
            && octets[2] & 0xF8 == 0x80  // a response, opcode 0
            && octets[4] == 0 && octets[5] == 1
            && lowercased(octets[headerOctets..<questionEnd]) == lowercased(query[headerOctets..<questionEnd])
    }

    private static func read(
        _ answer: [DNSRecord], _ authority: [DNSRecord], _ question: DNSQuestion, isNameAbsent: Bool, _ isAuthenticated: Bool,
        _ now: MonotonicTime
    ) -> Reading {
        var name = question.name
        var ttl = ttlMax
        var aliases = 0
        while true {
            let found = answer.filter { $0.name == name && $0.type == question.type }
            if !found.isEmpty {
                guard !isNameAbsent else { return .serverFailed(.malformed("it has records of a name it calls absent")) }
                for record in found { ttl = min(ttl, record.ttl) }
                return .result(
                    .records(DNSRecords(rdata: found.map(\.rdata), expires: now + ttl, isAuthenticated: isAuthenticated)))
            }
            guard let alias = answer.first(where: { $0.name == name && $0.type == .cname }) else { break }
            var rdata = alias.rdata[...]
            guard let target = try? DomainName.decode(&rdata) else { return .serverFailed(.malformed("a CNAME is malformed")) }
            ttl = min(ttl, alias.ttl)
            name = target
            aliases += 1
            guard aliases <= aliasesMax else { return .serverFailed(endlessAliases) }
        }
        func absence(until expires: MonotonicTime) -> Reading {
            .result(
                .absent(
                    DNSAbsence(
                        isNameAbsent: isNameAbsent && aliases == 0, expires: expires, isAuthenticated: isAuthenticated,
                        alias: aliases > 0 ? name : nil, isAliasAbsent: isNameAbsent && aliases > 0)))
        }
        if let soa = authority.first(where: { $0.type == .soa && name.isWithin($0.name) }) {
            return absence(until: now + min(ttl, soa.ttl, soa.soaMinimum ?? .zero, absenceTTLMax))
        }
        // Without SOA it may be a referral or an alias the server did not follow: neither says that there is nothing.
        guard isNameAbsent || (aliases == 0 && !authority.contains { $0.type == .ns }) else {
            return .serverFailed(.malformed("it ends in a referral or an unresolved alias"))
        }
        // Or it is the word of a server that does not have the zone it was asked for: a resolver takes out the SOA of the zone above. Who has it
        // says so by its SOA (RFC 2308 section 2); resolvers that forget that still vouch for what they validated.
        guard isAuthenticated else { return .serverFailed(.unproven) }
        return absence(until: now + min(ttl, absenceTTLWithoutSOA))
    }
}

/// One record of an answer, copied out of libldns.
struct DNSRecord: Hashable, Sendable {
    var name: DomainName
    var type: DNSType
    var ttl: Duration
    var rdata: [UInt8]

    /// The last four octets of a SOA: how long absence may be remembered (RFC 2308).
    fileprivate var soaMinimum: Duration? {
        guard rdata.count >= 22 else { return nil }
        return .seconds(rdata.suffix(4).reduce(0) { $0 << 8 | Int($1) })
    }
}

/// The one owner of an `ldns_pkt`.
struct LDNSPacket: ~Copyable {
    enum Section { case answer, authority }

    /// Records taken of one section; a 64 KB answer over TCP holds at most some thousands.
    static let recordsMax = 512

    private let packet: UnsafeMutablePointer<ldns_pkt>

    /// The corresponding C function is `ldns_pkt_query_new`.
    init?(question: DNSQuestion) {
        let wire = question.name.wire
        guard let name = ldns_dname_new_frm_data(UInt16(wire.count), wire) else { return nil }
        let type = ldns_rr_type(rawValue: UInt32(question.type.rawValue))
        // Takes ownership of the name, unless it fails.
        guard let packet = ldns_pkt_query_new(name, type, LDNS_RR_CLASS_IN, UInt16(LDNS_RD)) else {
            ldns_rdf_deep_free(name)
            return nil
        }
        self.packet = packet
    }

    /// The corresponding C function is `ldns_wire2pkt`.
    init?(decoding octets: [UInt8]) {
        var made: UnsafeMutablePointer<ldns_pkt>?
        guard ldns_wire2pkt(&made, octets, octets.count) == LDNS_STATUS_OK, let made else { return nil }
        packet = made
    }

    deinit { ldns_pkt_free(packet) }

    /// The corresponding C function is `ldns_pkt2wire`.
    func encode(id: UInt16, edns: Bool, isUnchecked: Bool, wantsSignatures: Bool = false) -> [UInt8]? {
        ldns_pkt_set_id(packet, id)
        ldns_pkt_set_cd(packet, isUnchecked ? 1 : 0)
        // Asks for the AD flag without asking for the signatures (RFC 6840 section 5.7).
        ldns_pkt_set_ad(packet, 1)
        ldns_pkt_set_edns_udp_size(packet, edns ? DNSMessage.udpPayloadBytesMax : 0)
        ldns_pkt_set_edns_do(packet, edns && wantsSignatures ? 1 : 0)
        var wire: UnsafeMutablePointer<UInt8>?
        var count = 0
        guard ldns_pkt2wire(&wire, packet, &count) == LDNS_STATUS_OK, let wire else { return nil }
        defer { free(wire) }
        return Array(UnsafeBufferPointer(start: wire, count: count))
    }

    /// The options of EDNS0 as octets: code, length, data. The corresponding C function is `ldns_pkt_edns_data`.
    var extensions: [UInt8] {
        guard let field = ldns_pkt_edns_data(packet), let data = ldns_rdf_data(field) else { return [] }
        return Array(UnsafeBufferPointer(start: data, count: ldns_rdf_size(field)))
    }

    func records(_ section: Section) -> [DNSRecord] {
        guard let list = section == .answer ? ldns_pkt_answer(packet) : ldns_pkt_authority(packet) else { return [] }
        return (0..<min(ldns_rr_list_rr_count(list), Self.recordsMax)).compactMap { index in
            ldns_rr_list_rr(list, index).flatMap { DNSRecord(copying: $0) }
        }
    }
}

extension DNSRecord {
    /// `nil` for a class other than IN.
    fileprivate init?(copying record: UnsafeMutablePointer<ldns_rr>) {
        guard ldns_rr_get_class(record) == LDNS_RR_CLASS_IN, let owner = ldns_rr_owner(record) else { return nil }
        var wire = Self.octets(owner)[...]
        guard let name = try? DomainName.decode(&wire) else { return nil }
        self.name = name
        type = DNSType(rawValue: UInt16(truncatingIfNeeded: ldns_rr_get_type(record).rawValue))
        // RFC 2181 section 8: a TTL with the highest bit set means zero.
        let seconds = ldns_rr_ttl(record)
        ttl = .seconds(seconds > UInt32(Int32.max) ? 0 : Int(seconds))
        rdata = []
        // The fields' data are the wire form, names already uncompressed, so put together they are the RDATA.
        for index in 0..<ldns_rr_rd_count(record) {
            if let field = ldns_rr_rdf(record, index) { rdata += Self.octets(field) }
        }
    }

    private static func octets(_ field: UnsafeMutablePointer<ldns_rdf>) -> [UInt8] {
        guard let data = ldns_rdf_data(field) else { return [] }
        return Array(UnsafeBufferPointer(start: data, count: ldns_rdf_size(field)))
    }
}
