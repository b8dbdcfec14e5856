import MATRuntime
import MATSignal

/// What `nft -j list ruleset` prints (libnftables-json(5)), as a `HostFirewall`. Rules of iptables-nft are in it too, as far as nft can tell what they
/// ask for.
enum NFTablesListing {
    /// Elements taken of one set.
    private static let elementsMax = 4096

    /// - Parameter texts: rules as people write them, by `key`.
    /// - Returns: `nil` if it is no such listing.
    static func parse(_ octets: some Collection<UInt8>, texts: [String: String] = [:]) -> HostFirewall? {
        guard let entries = (try? JSONValue.parse(octets))?["nftables"]?.array else { return nil }
        var (chains, order): ([String: HostFirewall.Chain], [String]) = ([:], [])
        let sets = namedSets(entries)
        for entry in entries {
            if let chain = entry["chain"], let table = table(chain), let name = chain["name"]?.string {
                let key = "\(table.family) \(table.name) \(name)"
                chains[key] = HostFirewall.Chain(table: table, name: name, base: base(chain))
                order.append(key)
            } else if let rule = entry["rule"], let table = table(rule), let name = rule["chain"]?.string {
                let text = rule["handle"]?.int.flatMap { texts[key(table, handle: $0)] }
                let reader = RuleReader(table: table, sets: sets, text: text ?? "a rule")
                chains["\(table.family) \(table.name) \(name)"]?.rules += reader.rules(rule["expr"]?.array ?? [])
            }
        }
        var firewall = HostFirewall()
        for key in order { if let chain = chains[key] { firewall.add(chain) } }
        return firewall
    }

    /// Rules as `nft -a list ruleset` writes them, by table and handle.
    static func texts(_ listing: String) -> [String: String] {
        var (found, place): ([String: String], Substring?) = ([:], nil)
        for line in listing.split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 3)
            if line.hasPrefix("table "), words.count >= 3 {
                place = line.dropFirst(6).prefix { $0 != "{" }
            } else if let place, let mark = line.range(of: " # handle "), let handle = Int64(line[mark.upperBound...]) {
                let names = place.split(separator: " ")
                let text = line[..<mark.lowerBound].drop { $0 == "\t" || $0 == " " }
                if names.count == 2, !text.hasSuffix("{") { found["\(names[0]) \(names[1]) \(handle)"] = withoutCounts(String(text)) }
            }
        }
        return found
    }

    /// What a counter has counted says nothing about the rule.
    private static func withoutCounts(_ text: String) -> String { text.replacing(/counter packets \d+ bytes \d+[ ]/, with: "") }

    private static func key(_ table: HostFirewall.Table, handle: Int64) -> String { "\(table.family) \(table.name) \(handle)" }

    private static func table(_ object: JSONValue) -> HostFirewall.Table? {
        guard let family = object["family"]?.string, ["ip", "ip6", "inet"].contains(family), let name = object["table"]?.string,
            name != "mat", !name.hasPrefix("mat_")
        else { return nil }
        return HostFirewall.Table(tool: .nftables, family: family, name: name)
    }

    private static func base(_ chain: JSONValue) -> HostFirewall.Base? {
        guard let hook = chain["hook"]?.string.flatMap(HostFirewall.Hook.init) else { return nil }
        return HostFirewall.Base(hook: hook, priority: Int(chain["prio"]?.int ?? 0), dropsAtEnd: chain["policy"]?.string == "drop")
    }

    private static func namedSets(_ entries: [JSONValue]) -> [String: [JSONValue]] {
        var sets: [String: [JSONValue]] = [:]
        for entry in entries {
            guard let set = entry["set"], let table = table(set), let name = set["name"]?.string, let elements = set["elem"]?.array else { continue }
            sets["\(table.family) \(table.name) \(name)"] = Array(elements.prefix(elementsMax))
        }
        return sets
    }
}

/// Reads one rule. A verdict map becomes a rule for each of its entries.
private struct RuleReader {
    let table: HostFirewall.Table
    let sets: [String: [JSONValue]]
    let text: String

    func rules(_ expressions: [JSONValue]) -> [HostFirewall.Rule] {
        var matches: [HostFirewall.Match] = []
        for expression in expressions {
            guard let (kind, value) = expression.object?.first else {
                matches.append(.unknown)
                continue
            }
            switch kind {
            case "match": matches += self.matches(value)
            case "vmap": return entries(of: value, after: matches)
            case "limit", "ct count", "fib", "quota": matches.append(.unknown)
            case "xt":
                // A target of iptables that nft does not know ends the rule as nobody knows how.
                matches.append(.unknown)
                if value["type"]?.string == "target" { return [HostFirewall.Rule(matches: matches, verdict: .accept, text: text)] }
            default:
                if let verdict = Self.verdict(kind, value) { return [HostFirewall.Rule(matches: matches, verdict: verdict, text: text)] }
            }
        }
        return [HostFirewall.Rule(matches: matches, verdict: nil, text: text)]
    }

    private static func verdict(_ kind: String, _ value: JSONValue) -> HostFirewall.Rule.Verdict? {
        switch kind {
        // What is translated, or given to a program, goes on.
        case "accept", "queue", "masquerade", "snat", "dnat", "redirect", "tproxy": .accept
        case "drop", "reject": .drop
        case "return": .goBack
        case "jump": value["target"]?.string.map { .jump($0) }
        case "goto": value["target"]?.string.map { .goTo($0) }
        default: nil
        }
    }

    private func entries(of map: JSONValue, after matches: [HostFirewall.Match]) -> [HostFirewall.Rule] {
        guard let key = map["key"], let data = map["data"]?["set"]?.array else {
            return [HostFirewall.Rule(matches: matches + [.unknown], verdict: .accept, text: text)]
        }
        return data.compactMap { entry in
            guard let pair = entry.array, pair.count == 2, let (kind, value) = pair[1].object?.first, let verdict = Self.verdict(kind, value)
            else { return nil }
            return HostFirewall.Rule(matches: matches + self.matches(of: key, "==", pair[0]), verdict: verdict, text: text)
        }
    }

    private func matches(_ match: JSONValue) -> [HostFirewall.Match] {
        guard let left = match["left"], let right = match["right"] else { return [.unknown] }
        return matches(of: left, match["op"]?.string ?? "==", right)
    }

    private func matches(of left: JSONValue, _ operation: String, _ right: JSONValue) -> [HostFirewall.Match] {
        let (field, implied) = field(left)
        guard let field, let values = values(right, operation) else { return implied + [.unknown] }
        return implied + [HostFirewall.Match(field: field, values: values, isNegated: operation == "!=")]
    }

    /// What is looked at; and what a packet must be for that, which the listing does not say again.
    private func field(_ left: JSONValue) -> (field: HostFirewall.Match.Field?, implied: [HostFirewall.Match]) {
        if let meta = left["meta"]?["key"]?.string {
            switch meta {
            case "iifname", "iif": return (.inInterface, [])
            case "oifname", "oif": return (.outInterface, [])
            case "l4proto": return (.networkProtocol, [])
            case "nfproto", "protocol": return (.family, [])
            default: return (nil, [])
            }
        }
        if left["ct"]?["key"]?.string == "state" { return (.state, []) }
        guard let payload = left["payload"], let name = payload["protocol"]?.string, let part = payload["field"]?.string else { return (nil, []) }
        switch (name, part) {
        case ("ip", "saddr"): return (.source, [Self.family("ipv4")])
        case ("ip", "daddr"): return (.destination, [Self.family("ipv4")])
        case ("ip", "protocol"): return (.networkProtocol, [Self.family("ipv4")])
        case ("ip6", "saddr"): return (.source, [Self.family("ipv6")])
        case ("ip6", "daddr"): return (.destination, [Self.family("ipv6")])
        case ("ip6", "nexthdr"): return (.networkProtocol, [Self.family("ipv6")])
        case ("ip", _): return (nil, [Self.family("ipv4")])
        case ("ip6", _): return (nil, [Self.family("ipv6")])
        case ("th", "sport"): return (.sourcePort, [])
        case ("th", "dport"): return (.destinationPort, [])
        case ("th", _), ("ether", _), ("vlan", _): return (nil, [])
        case (_, "sport"): return (.sourcePort, [Self.of(name)])
        case (_, "dport"): return (.destinationPort, [Self.of(name)])
        default: return (nil, [Self.of(name)])
        }
    }

    private static func family(_ name: String) -> HostFirewall.Match { HostFirewall.Match(field: .family, values: [.word(name)]) }
    private static func of(_ name: String) -> HostFirewall.Match { HostFirewall.Match(field: .networkProtocol, values: [.word(name)]) }

    /// - Returns: `nil` if it can't be judged.
    private func values(_ right: JSONValue, _ operation: String) -> [HostFirewall.Match.Value]? {
        switch operation {
        case "==", "!=", "in": return values(right)
        case "<": return right.int.map { [.numbers(0...max(0, Int(clamping: $0) - 1))] }
        case "<=": return right.int.map { [.numbers(0...max(0, Int(clamping: $0)))] }
        case ">=", ">":
            guard let number = right.int, (0...65_535).contains(number) else { return nil }
            return [.numbers(Int(number) + (operation == ">" ? 1 : 0)...65_536)]
        default: return nil
        }
    }

    private func values(_ right: JSONValue) -> [HostFirewall.Match.Value]? {
        switch right {
        case .int(let number): return [.numbers(Int(clamping: number)...Int(clamping: number))]
        case .string(let text):
            if text.hasPrefix("@") { return sets["\(table.family) \(table.name) \(text.dropFirst())"].flatMap(all) }
            return [IPPrefix(text).map(HostFirewall.Match.Value.prefix) ?? .word(Self.familyNames[text] ?? text)]
        case .array(let elements): return all(elements)
        case .object(let members):
            if let elements = members["set"]?.array { return all(elements) }
            if let element = members["elem"]?["val"] { return values(element) }
            if let ends = members["range"]?.array, ends.count == 2, let low = ends[0].int, let high = ends[1].int, low <= high {
                return [.numbers(Int(clamping: low)...Int(clamping: high))]
            }
            if let prefix = members["prefix"], let address = prefix["addr"]?.string, let length = prefix["len"]?.int {
                return IPPrefix("\(address)/\(length)").map { [.prefix($0)] }
            }
            return nil
        default: return nil
        }
    }

    private static let familyNames = ["ip": "ipv4", "ip6": "ipv6"]

    private func all(_ elements: [JSONValue]) -> [HostFirewall.Match.Value]? {
        var found: [HostFirewall.Match.Value] = []
        for element in elements {
            guard let more = values(element) else { return nil }
            found += more
        }
        return found
    }
}
