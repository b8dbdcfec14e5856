import MATDNS
import MATSignal

/// What a resolver says about the signatures of a home address's reverse name.
struct DNSSECFacts: Hashable, Sendable {
    var name: String
    var resolver: Endpoint
    /// Whether `require-dnssec` is set for who asks it.
    var isRequired: Bool
    /// The answer as anybody gets it; `nil` if there was none.
    var answer: DNSAuthentication?
    /// The answer of one who wants it whatever the resolver thinks of it (the CD flag), if the first was a failure.
    var unchecked: DNSAuthentication?
    /// Whether the resolver validates the root, if the answer has signatures and no AD flag.
    var validatesRoot: Bool?
}

extension DoctorFindings {
    static func dnssec(_ facts: DNSSECFacts) -> DoctorFinding? {
        guard let answer = facts.answer else { return nil }
        let (name, resolver) = (facts.name, "\(facts.resolver.address)")
        if answer.code == 2 {
            guard let unchecked = facts.unchecked, unchecked.code == 0 || unchecked.code == 3 else { return nil }
            let reason = answer.reasons.isEmpty ? "" : " (\(answer.reasons.joined(separator: "; ")))"
            return DoctorFinding(
                .problem, "DNSSEC",
                "\(resolver) has an answer about \(name) and refuses it as bogus\(reason): no validating host finds this address",
                remedy:
                    "`delv @\(resolver) \(name) TYPE65400` shows which link breaks. The DS at the parent must fit the zone's key (after a change of keys, replace it), signatures must not have ended (sign the zone anew), and a trust anchor set by hand in the resolver must be the zone's"
            )
        }
        guard answer.code == 0 || answer.code == 3 else { return nil }
        let severity: DoctorFinding.Severity = facts.isRequired ? .problem : .note
        let required = facts.isRequired ? ", and `require-dnssec` lets nothing else count" : ""
        guard !answer.isAuthenticated else {
            return DoctorFinding(.ok, "DNSSEC", "\(resolver) has validated what it says about \(name)")
        }
        guard answer.hasSignatures else {
            return DoctorFinding(
                severity, "DNSSEC", "the zone of \(name) is not signed\(required): who forges DNS answers can name another mapping server",
                remedy: "sign the zone (Knot: `dnssec-signing: on`; BIND: `dnssec-policy default`) and give its DS to the parent zone")
        }
        if facts.validatesRoot == true {
            return DoctorFinding(
                severity, "DNSSEC", "the zone of \(name) is signed, but no DS leads to it from the zone above\(required)",
                remedy: "give the DS of the zone's key to whoever keeps the parent zone (the RIR or provider that delegated the addresses)")
        }
        return DoctorFinding(
            severity, "DNSSEC", "the zone of \(name) is signed, but the resolver \(resolver) does not validate\(required)",
            remedy: "use one that does, best on this host: unbound with a trust anchor, or systemd-resolved with `DNSSEC=yes`")
    }
}
