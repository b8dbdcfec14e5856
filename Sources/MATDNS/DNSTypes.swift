import MATCore
import MATSignal

/// A record type, by number (IANA "DNS parameters").
public struct DNSType: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let a = DNSType(rawValue: 1)
    public static let ns = DNSType(rawValue: 2)
    public static let cname = DNSType(rawValue: 5)
    public static let soa = DNSType(rawValue: 6)
    public static let ptr = DNSType(rawValue: 12)
    public static let txt = DNSType(rawValue: 16)
    public static let aaaa = DNSType(rawValue: 28)
    public static let srv = DNSType(rawValue: 33)
    package static let rrsig = DNSType(rawValue: 46)
    package static let dnskey = DNSType(rawValue: 48)
    public static let ims = DNSType(rawValue: IMSRecord.type)
}

/// What is asked: a name and a type, always of class IN.
public struct DNSQuestion: Hashable, Sendable, CustomStringConvertible {
    public var name: DomainName
    public var type: DNSType

    public init(_ name: DomainName, _ type: DNSType) {
        self.name = name
        self.type = type
    }

    public var description: String { "\(name) type \(type.rawValue)" }
}

/// The answer to a question. Absence and failure are never mixed: a caller may act on absence.
public enum DNSResult: Hashable, Sendable {
    /// At least one record.
    case records(DNSRecords)
    /// NXDOMAIN or no data of that type, from an answer that tells which zone says so.
    case absent(DNSAbsence)
    /// Nothing is known, and why.
    case failed(DNSFailure)
}

public struct DNSRecords: Hashable, Sendable {
    /// The RDATA of each record, names in it uncompressed.
    public var rdata: [[UInt8]]
    /// When the first of them, or a CNAME on the way to them, runs out.
    public var expires: MonotonicTime
    /// The AD flag of a trusted resolver.
    public var isAuthenticated: Bool

    public init(rdata: [[UInt8]], expires: MonotonicTime, isAuthenticated: Bool = false) {
        self.rdata = rdata
        self.expires = expires
        self.isAuthenticated = isAuthenticated
    }
}

public struct DNSAbsence: Hashable, Sendable {
    /// The name itself doesn't exist, so nothing does below it either (RFC 8020).
    public var isNameAbsent: Bool
    public var expires: MonotonicTime
    public var isAuthenticated: Bool
    /// Where the name's aliases (CNAME) end, if it is one: there is nothing of the type there.
    public var alias: DomainName?
    /// That name doesn't exist, nor does anything below it.
    public var isAliasAbsent: Bool

    public init(isNameAbsent: Bool, expires: MonotonicTime, isAuthenticated: Bool = false, alias: DomainName? = nil, isAliasAbsent: Bool = false) {
        self.isNameAbsent = isNameAbsent
        self.expires = expires
        self.isAuthenticated = isAuthenticated
        self.alias = alias
        self.isAliasAbsent = isAliasAbsent
    }
}

public enum DNSFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// No usable answer within the total time.
    case timeout
    /// No server could be reached at all.
    case unreachable
    /// An error code other than NXDOMAIN: 2 is SERVFAIL. A validating resolver's SERVFAIL for what it found forged is `bogus`.
    case refused(code: UInt8)
    /// An answer that passed for ours but is damaged or contradicts itself.
    case malformed(String)
    /// There is nothing, says an answer without the SOA of a zone that could know.
    case unproven
    /// A resolver has an answer and refuses to vouch for it: DNSSEC validation failed.
    case bogus
    /// `requireDNSSEC` is set and the answer is not authenticated.
    case notAuthenticated
    /// More questions in flight than the bound.
    case overloaded
    case noServers

    /// Whether it says that somebody may have tampered with the answer: then nothing may be concluded, not even after a while.
    public var isDistrust: Bool { self == .bogus || self == .notAuthenticated }

    /// Whether a server said something, and may say more of another name.
    var isAnswer: Bool {
        switch self {
        case .refused, .malformed, .unproven: true
        case .timeout, .unreachable, .bogus, .notAuthenticated, .overloaded, .noServers: false
        }
    }

    public var description: String {
        switch self {
        case .timeout: "no DNS server answered in time"
        case .unreachable: "no DNS server is reachable"
        case .refused(2): "the DNS server failed (SERVFAIL)"
        case .refused(let code): "the DNS server refused (code \(code))"
        case .malformed(let why): "the DNS answer is not usable: \(why)"
        case .unproven: "the DNS answer is an absence that no zone vouches for (it has no SOA): the zone's servers may not have it"
        case .bogus: "the DNS answer is bogus: its DNSSEC signatures do not verify"
        case .notAuthenticated: "the DNS answer is not authenticated, and DNSSEC is required"
        case .overloaded: "too many DNS questions at once"
        case .noServers: "no DNS server is configured (see /etc/resolv.conf)"
        }
    }
}
