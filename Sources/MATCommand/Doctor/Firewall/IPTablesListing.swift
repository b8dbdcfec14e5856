import MATSignal

/// What iptables-save(8) and its kin print, as chains of a `HostFirewall`. nft does not show rules of iptables-legacy at all, and of iptables-nft it can't
/// tell what some ask for.
enum IPTablesListing {
    /// Priorities of the tables at a hook (NF_IP_PRI_*).
    private static let priorities = ["raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50]
    private static let hooks: [String: HostFirewall.Hook] = [
        "PREROUTING": .prerouting, "INPUT": .input, "OUTPUT": .output, "POSTROUTING": .postrouting,
    ]

    static func parse(_ text: String, family: AddressFamily, tool: HostFirewall.Tool) -> [HostFirewall.Chain] {
        var (chains, places): ([HostFirewall.Chain], [String: Int]) = ([], [:])
        var table = HostFirewall.Table(tool: tool, family: family == .ipv4 ? "ip" : "ip6", name: "")
        for line in text.split(separator: "\n") {
            if line.hasPrefix("*") {
                table.name = String(line.dropFirst())
                places = [:]
            } else if line.hasPrefix(":") {
                let words = line.dropFirst().split(separator: " ")
                guard words.count >= 2 else { continue }
                let name = String(words[0])
                let base = hooks[name].map {
                    HostFirewall.Base(hook: $0, priority: priorities[table.name] ?? 0, dropsAtEnd: words[1] == "DROP")
                }
                places[name] = chains.count
                chains.append(HostFirewall.Chain(table: table, name: name, base: base))
            } else if line.hasPrefix("-A ") {
                let words = words(line)
                guard words.count > 2, let place = places[words[1]] else { continue }
                chains[place].rules.append(rule(words[2...], text: String(line)))
            }
        }
        return chains
    }

    /// Words apart by blanks; those in double quotes hold blanks.
    private static func words(_ line: Substring) -> [String] {
        var (words, word, isQuoted, isEscaped) = ([String](), "", false, false)
        for character in line {
            switch character {
            case _ where isEscaped:
                word.append(character)
                isEscaped = false
            case "\\" where isQuoted: isEscaped = true
            case "\"": isQuoted.toggle()
            case " " where !isQuoted:
                if !word.isEmpty { words.append(word) }
                word = ""
            default: word.append(character)
            }
        }
        return word.isEmpty ? words : words + [word]
    }

    private static func rule(_ words: ArraySlice<String>, text: String) -> HostFirewall.Rule {
        var rule = HostFirewall.Rule(matches: [], verdict: nil, text: text)
        var (rest, isNegated) = (words, false)
        while let word = rest.popFirst() {
            if word == "!" {
                isNegated = true
                continue
            }
            func add(_ field: HostFirewall.Match.Field, _ values: [HostFirewall.Match.Value]?) {
                guard let values else { return rule.matches.append(.unknown) }
                rule.matches.append(HostFirewall.Match(field: field, values: values, isNegated: isNegated))
            }
            let value = rest.first ?? ""
            switch word {
            case "-p", "--protocol": add(.networkProtocol, [.word(value == "ipv6-icmp" ? "icmpv6" : value)])
            case "-s", "--source": add(.source, IPPrefix(value).map { [.prefix($0)] })
            case "-d", "--destination": add(.destination, IPPrefix(value).map { [.prefix($0)] })
            case "-i", "--in-interface": add(.inInterface, [.word(value)])
            case "-o", "--out-interface": add(.outInterface, [.word(value)])
            case "--dport", "--dports": add(.destinationPort, ports(value))
            case "--sport", "--sports": add(.sourcePort, ports(value))
            case "--ctstate", "--state": add(.state, value.split(separator: ",").map { .word($0.lowercased()) })
            case "-j", "--jump":
                rule.verdict = verdict(value)
                return rule
            case "-g", "--goto":
                rule.verdict = .goTo(value)
                return rule
            // What names a module, or says nothing about packets.
            case "-m", "--match", "--comment": break
            case _ where word.hasPrefix("-"): rule.matches.append(.unknown)
            default: continue
            }
            isNegated = false
            _ = rest.popFirst()
        }
        return rule
    }

    private static func ports(_ text: String) -> [HostFirewall.Match.Value]? {
        var ranges: [HostFirewall.Match.Value] = []
        for part in text.split(separator: ",") {
            let ends = part.split(separator: ":", omittingEmptySubsequences: false).map { Int($0) }
            guard let low = ends.first, let low, let high = ends.last, let high, low <= high else { return nil }
            ranges.append(.numbers(low...high))
        }
        return ranges
    }

    private static func verdict(_ target: String) -> HostFirewall.Rule.Verdict? {
        switch target {
        case "ACCEPT", "QUEUE", "NFQUEUE", "MASQUERADE", "SNAT", "DNAT", "REDIRECT", "TPROXY": .accept
        case "DROP", "REJECT", "TARPIT": .drop
        case "RETURN": .goBack
        // They go on behind it.
        case "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TCPMSS", "TOS", "DSCP", "CLASSIFY", "SET", "CHECKSUM", "AUDIT", "TTL",
            "HL",
            "TRACE", "CONNSECMARK", "SECMARK", "RATEEST", "LED":
            nil
        default: .jump(target)
        }
    }
}
