import Foundation
import MATSignal

/// Reads this host's firewall by the tools that it has. Changes nothing: neither are tables made nor modules loaded.
enum FirewallSurvey {
    private static let timeMax = 5

    /// - Returns: the rules, and what could not be looked at and why.
    static func read() -> (firewall: HostFirewall, gaps: [String]) {
        var (firewall, gaps) = (HostFirewall(), [String]())
        let listing = ProgramOutput.of(["nft", "-j", "list", "ruleset"], seconds: timeMax, complaints: false)
        if let failure = listing.failure {
            gaps.append("rules of nftables: nft: \(failure)")
        } else {
            let texts = NFTablesListing.texts(ProgramOutput.of(["nft", "-a", "list", "ruleset"], seconds: timeMax, complaints: false).text)
            firewall = NFTablesListing.parse(Array(listing.text.utf8), texts: texts) ?? firewall
        }
        for family in AddressFamily.allCases {
            let program = family == .ipv4 ? "iptables" : "ip6tables"
            // What iptables-nft wrote, better than nft can tell it.
            if firewall.hasTablesOfIPTables(family) {
                let saved = ProgramOutput.of(["\(program)-nft-save"], seconds: timeMax, complaints: false)
                if saved.failure == nil { firewall.replace(by: IPTablesListing.parse(saved.text, family: family, tool: .iptables)) }
            }
            // Reading those of iptables-legacy would load its modules where nobody uses it.
            let names = (try? String(contentsOfFile: family == .ipv4 ? "/proc/net/ip_tables_names" : "/proc/net/ip6_tables_names", encoding: .utf8))
            guard names?.isEmpty == false else { continue }
            let saved = ProgramOutput.of(["\(program)-legacy-save"], seconds: timeMax, complaints: false)
            if let failure = saved.failure {
                gaps.append("rules of \(program)-legacy: \(failure)")
            } else {
                for chain in IPTablesListing.parse(saved.text, family: family, tool: .iptablesLegacy) { firewall.add(chain) }
            }
        }
        return (firewall, gaps)
    }
}

extension HostFirewall {
    private static let namesOfIPTables: Set = ["raw", "mangle", "nat", "filter", "security"]

    fileprivate func hasTablesOfIPTables(_ family: AddressFamily) -> Bool {
        chains.contains {
            $0.table.tool == .nftables && $0.table.family == (family == .ipv4 ? "ip" : "ip6") && Self.namesOfIPTables.contains($0.table.name)
        }
    }

    /// Chains of the same rules, as another tool tells them.
    fileprivate mutating func replace(by better: [Chain]) {
        for table in Set(better.map(\.table)) { remove(Table(tool: .nftables, family: table.family, name: table.name)) }
        for chain in better { add(chain) }
    }
}
