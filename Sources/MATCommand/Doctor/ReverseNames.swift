import MATCore
import MATDNS
import MATSignal

/// What the DNS has for one address of a prefix that is smaller than a zone of the reverse tree: each address has a name of its own there, and
/// any of them may lack.
struct ReverseNameFacts: Hashable, Sendable {
    enum Outcome: Hashable, Sendable {
        case found
        case absent
        case failed(String)
    }

    var address: IPAddress
    /// Where its aliases end, if it is one.
    var alias: DomainName?
    var outcome = Outcome.failed("nothing was heard of it in time")

    /// The zone that its alias leads into.
    fileprivate var zone: String? { alias.flatMap(\.parent)?.description }
}

extension DoctorFindings {
    static func names(of prefix: IPPrefix, _ names: [ReverseNameFacts]) -> [DoctorFinding] {
        let found = names.filter { $0.outcome == .found }
        let zones = Set(found.compactMap(\.zone)).sorted()
        let by = zones.isEmpty ? "" : ", by aliases (CNAME) into \(zones.joined(separator: ", "))"
        guard found.count < names.count else {
            return [DoctorFinding(.ok, "reverse zone", "\(prefix): all \(names.count) addresses have a mapping server\(by)")]
        }
        // Where some are found, what lacks may be nobody's.
        let severity: DoctorFinding.Severity = found.isEmpty ? .problem : .warning
        let above = DomainName.reverse(prefix)
        var findings: [DoctorFinding] = []
        func add(_ some: [ReverseNameFacts], _ text: (String) -> String, _ remedy: String) {
            guard !some.isEmpty else { return }
            findings.append(DoctorFinding(severity, "reverse zone", "\(prefix): \(text(listed(some)))", remedy: remedy))
        }
        let lacking = names.filter { $0.outcome != .found }
        add(
            lacking.filter { $0.outcome == .absent && $0.alias == nil },
            { "the DNS has neither a mapping server nor an alias (CNAME) at the names of \($0)" },
            "add the lines of `mat zone` to \(above); where that zone is your provider's, it is to make these names aliases into a zone of yours: it needs the lines of `mat zone --origin ZONE --parent`, your zone those of `mat zone --origin ZONE`"
        )
        for zone in Set(lacking.compactMap(\.zone)).sorted() {
            let here = lacking.filter { $0.zone == zone }
            add(
                here.filter { $0.outcome == .absent }, { "the names of \($0) are aliases into \(zone), which has no mapping server there" },
                "put the lines of `mat zone --origin \(zone)` into that zone, in the place of earlier ones, and raise its serial; each address has its own, since a wildcard does not cover names with a PTR"
            )
            let failed = here.filter { $0.outcome != .absent }
            add(
                failed, { "the names of \($0) are aliases into \(zone), of which DNS gives no answer (\(reason(failed)))" },
                "the delegation is lame, or the alias wrong: each server that `dig NS \(zone)` names is to have that zone (`dig SOA \(zone) @SERVER`), and what signs it is to fit its DS in \(above)"
            )
        }
        let failed = lacking.filter { $0.outcome != .absent && $0.alias == nil }
        add(
            failed, { "\($0) can't be looked up: \(reason(failed))" },
            "a zone that is delegated to servers that do not have it is lame: `dig +trace \(DomainName.reverse(IPPrefix(failed.first?.address ?? prefix.address))) TYPE65400`"
        )
        return findings
    }

    private static func listed(_ names: [ReverseNameFacts]) -> String {
        let shown = names.prefix(4).map(\.address.description).joined(separator: ", ")
        return names.count > 4 ? "\(names.count) addresses (\(shown), ...)" : shown
    }

    private static func reason(_ names: [ReverseNameFacts]) -> String {
        if case .failed(let reason)? = names.first?.outcome { reason } else { "" }
    }
}
