import MATCore
import MATDNS
import MATSignal

/// What a look-up found, step by step: from a home address by way of DNS and an IMS to a verified mapping. Values only; `LookupWalk`
/// fills them in, `LookupReport` shows them.
struct LookupFindings: Sendable {
    /// How DNS names the servers (protocol.md section 8).
    enum Form: String, Sendable {
        case record = "IMS"
        case service = "SRV and TXT"
    }

    struct Servers: Sendable {
        var form: Form
        /// In the order they are to be tried in.
        var ordered: [IMSHost]
        var keys: [PublicKey]
        var relays: [RelayHost] = []
        var isAuthenticated: Bool
        /// How long resolvers may keep it, from now.
        var lifetime: Duration
    }

    enum DNS: Sendable {
        case found(Servers)
        /// Well-formed absence: a plain destination.
        case absent
        /// Nothing is known.
        case failed(String)
        /// Bogus, or an IMS without what is needed to use it.
        case unusable(String)
    }

    /// One MA Query and what came of it.
    struct Query: Sendable {
        enum Outcome: Hashable, Sendable {
            case answered(ResponseCode, rtt: Duration, text: String?)
            case silent
            case unsendable(String)
        }

        var server: Endpoint
        var sequence: UInt32
        /// Times that it was sent.
        var tries: Int
        var outcome: Outcome
    }

    /// One step of verification (protocol.md section 5).
    struct Check: Hashable, Sendable {
        var name: String
        /// Why it failed; `nil` if it passed.
        var failure: String?
    }

    var hoa: HomeAddress
    /// Servers that were asked for DNS.
    var resolvers: [Endpoint]
    /// Who names them, and why they may be others than the agent's.
    var resolversFrom: String?
    var resolversDoubt: String?
    var name: DomainName
    /// Where the name's aliases (CNAME) end, if it is one: in a zone of its own for a prefix longer than /24 (RFC 2317).
    var alias: DomainName?
    /// Whether these are validated by DNSSEC, whatever is at their end.
    var isAliasAuthenticated = false
    var dns: DNS?
    /// What SRV and TXT say, where there are records of type IMS; `nil` if they were not asked for.
    var otherForm: DNS?
    var dnsTook: Duration = .zero
    /// Whether the name has records of other types, as a PTR: then no wildcard above it covers it (RFC 4592).
    var isNameTaken = false
    var queries: [Query] = []
    /// By how many seconds each server's clock is ahead of this host's, as its cookies tell.
    var clocks: [(server: Endpoint, difference: Int64)] = []
    var mapping: CertifiedMapping?
    var checks: [Check] = []
    /// When the answer was looked at.
    var now: Now

    init(hoa: HomeAddress, resolvers: [Endpoint], now: Now) {
        self.hoa = hoa
        self.resolvers = resolvers
        self.now = now
        name = .reverse(hoa)
    }
}

// MARK: - What it amounts to

extension LookupFindings {
    /// A server that the zone lists more than once: lines of an earlier `mat zone` are still there, with old keys or addresses.
    var doubledServer: String? {
        guard case .found(let servers)? = dns else { return nil }
        let addresses = servers.ordered.flatMap(\.endpoints).map(\.description)
        return Set(addresses.filter { one in addresses.count(where: { $0 == one }) > 1 }).sorted().first
    }

    /// As in "192.0.2.53:53 (/etc/resolv.conf)".
    var asked: String { resolvers.map(\.description).joined(separator: ", ") + (resolversFrom.map { " (\($0))" } ?? "") }

    /// The zone that the alias leads into, as `mat zone --origin` takes it.
    var aliasZone: DomainName? { alias.flatMap(\.parent) }

    /// The endpoints of servers that the DNS names, and those of relays.
    var servers: [Endpoint] {
        if case .found(let servers)? = dns { servers.ordered.flatMap(\.endpoints) } else { [] }
    }

    var relays: [Endpoint] {
        if case .found(let servers)? = dns { servers.relays.flatMap(\.endpoints) } else { [] }
    }

    enum Verdict: Hashable, Sendable {
        /// Verified and in force: where packets go.
        case reachable([MappingRecord.Place])
        /// For each other outcome what it means, and what to do.
        case not(String, remedy: String)
    }

    var verdict: Verdict {
        switch dns {
        case nil: return .not("nothing was asked", remedy: "try again")
        case .absent? where isNameTaken:
            return .not(
                "\(hoa) is no MAT address: \(alias.map { "its reverse name is an alias of \($0), which" } ?? "its reverse name") exists (a PTR, or another record), so the lines of `mat zone` at a wildcard above it do not cover it, and it has none of its own",
                remedy: aliasZone.map { "put the lines of `mat zone --origin \($0)` into that zone" }
                    ?? "add what `mat zone --hoa \(hoa)` writes beside the PTR at \(name)")
        case .absent?:
            if let alias, let aliasZone {
                return .not(
                    "\(hoa) is no MAT address: its reverse name is an alias of \(alias), and the DNS has neither a type IMS record nor SRV there, so nodes talk to it plainly",
                    remedy: "if it should be one, put the lines of `mat zone --origin \(aliasZone)` into that zone")
            }
            return .not(
                "\(hoa) is no MAT address: DNS has neither a type IMS record nor SRV at its reverse name, so nodes talk to it plainly",
                remedy: "if it should be one, add the lines that `mat zone` writes to the reverse zone of \(name)")
        case .failed(let reason)?:
            let doubt = "Nodes that do not know \(hoa) as a peer talk to it plainly after 2 s, and ask again every 30 s"
            if let aliasZone {
                return .not(
                    "DNS gives no answer: \(ofAlias(reason)). \(doubt)",
                    remedy:
                        "the name servers of \(aliasZone) are to have that zone: ask each that `dig NS \(aliasZone)` names for it (`dig SOA \(aliasZone) @SERVER`); or the alias is wrong"
                )
            }
            return .not(
                "DNS gives no answer: \(reason). \(doubt)",
                remedy:
                    "try other servers with `--resolver`, and see the delegation of \(name) with `dig +trace`; if it is never a MAT address, list its prefix under `except` in matd.yaml"
            )
        case .unusable(let reason)?:
            return .not(
                "what DNS says can't be used: \(ofAlias(reason)). Packets to \(hoa) wait: it is not taken for a plain address",
                remedy:
                    "the operator of the zone\(aliasZone.map { " \($0)" } ?? "") mends it: compare with the lines of `mat zone`, and check signatures with `delv TYPE65400 \(alias ?? name)`"
            )
        case .found?: break
        }
        guard let mapping else { return withoutMapping }
        if let failed = checks.first(where: { $0.failure != nil }) {
            return .not(
                "the mapping is not to be believed: \(failed.failure ?? failed.name)",
                remedy:
                    "compare the keys in DNS with `mat ims status` on the server, the clocks of both hosts, and the node's certificate"
            )
        }
        if mapping.isRevocation {
            let time = Quantity.date(unixMilliseconds: mapping.certificate.notBefore)
            return .not(
                "\(hoa) is revoked: the operator of its mapping server took the address from its node at \(time)",
                remedy: "if its node is to have it again, the operator runs `mat enrol \(hoa)` with its key, and the certificate goes to the node")
        }
        if mapping.record.isWithdrawal {
            return .not("\(hoa) is withdrawn: its node has said that it is nowhere", remedy: "start matd on the node")
        }
        return .reachable(mapping.record.places)
    }

    /// A failure's words, with the alias in them.
    private func ofAlias(_ reason: String) -> String {
        guard let alias, !reason.contains("\(alias)") else { return reason }
        return "\(name) is an alias of \(alias); \(reason)"
    }

    private var withoutMapping: Verdict {
        let answers = queries.compactMap { query -> ResponseCode? in
            if case .answered(let code, _, _) = query.outcome { code } else { nil }
        }
        switch answers.last {
        case .notFound?:
            return .not(
                "\(hoa) is not registered: the node is off, or has not reached its IMS", remedy: "run `mat status` on the node")
        case .notAuthoritative?:
            return .not(
                "the server that DNS names does not serve \(hoa)",
                remedy: "add the prefix to imsd.yaml, or correct the record in DNS")
        case .cookieRequired?, nil:
            return .not(
                "no server answers",
                remedy: "let UDP port 6288 through to the server and back, and see there `systemctl status imsd`")
        case .ok?:
            return .not(
                "the server's answer has no mapping or certificate", remedy: "see the server's log; its version may differ")
        case let code?:
            return .not("the server refuses: \(code)", remedy: "the server's log says why: `journalctl -u imsd`")
        }
    }

    /// The steps of section 5, in order; those behind a failure are still tried, since together they show what is wrong.
    static func check(_ certified: CertifiedMapping, asked: HomeAddress, keys: [PublicKey], now: Now) -> [Check] {
        func step(_ name: String, _ body: () throws(VerificationFailure) -> Void) -> Check {
            do throws(VerificationFailure) {
                try body()
                return Check(name: name)
            } catch {
                return Check(name: name, failure: error.reason)
            }
        }
        return [
            step("addresses and times of certificate and mapping agree with \(asked) and this clock") {
                () throws(VerificationFailure) in
                try certified.checkTimesAndNames(asked: asked, now: now)
            },
            step("an IMS key from DNS signed the certificate") { () throws(VerificationFailure) in
                guard keys.contains(where: certified.certificate.isIssued) else {
                    throw VerificationFailure("none of the \(keys.count) keys in DNS signed the certificate")
                }
            },
            step("the certified node key signed the mapping") { () throws(VerificationFailure) in try certified.verifySignature()
            },
            step("the mapping is still in force") { () throws(VerificationFailure) in
                guard certified.record.expires > now.wallMilliseconds else {
                    throw VerificationFailure(
                        "the mapping expired at \(Quantity.date(unixMilliseconds: certified.record.expires))")
                }
            },
        ]
    }
}

extension DomainName {
    /// The name above.
    var parent: DomainName? { DomainName(labels: labels.dropFirst()) }
}
