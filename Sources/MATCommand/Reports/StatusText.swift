import MATControl

/// `mat status` for people, from what matd says.
enum StatusText {
    /// What is said of the node itself would be out of sight above more.
    private static let peersMax = 20

    /// - Parameter names: of peers, by home address.
    static func text(_ status: NodeReport, names: [String: String] = [:], _ style: TextStyle = .plain) -> String {
        var lines: [String] = []
        let facts = [
            status.registered ? style.good("registered") : style.bad("not registered"),
            "up \(Quantity.duration(milliseconds: status.uptimeMilliseconds))",
            Quantity.count(Int64(clamping: status.counters.handovers), "handover"),
        ]
        lines.append("matd is \(facts.joined(separator: ", "))")
        for home in status.homes { lines += [""] + homeLines(home, hasAddress: !status.locators.isEmpty, style) }
        lines += [""] + locatorLines(status, style)
        lines += relayLines(status.relays ?? [], style)
        if status.relayOnly == true { lines += hiddenLines(status, style) }
        lines += NamesText.lines(status, style)
        if status.resolving > 0 { lines += ["", "\(Quantity.count(Int64(status.resolving), "destination")) being looked up"] }
        if status.repairs > 0 {
            lines += [
                "",
                "\(Quantity.count(Int64(clamping: status.repairs), "repair")) to the kernel's tables since the start: something else changes them",
            ]
            if let last = status.lastRepair { lines.append("  the last: \(last)") }
        }
        let peers = status.peers
        let count = max(status.peersCount, peers.count)
        lines += ["", style.head("Peers (\(count))")]
        lines += peers.isEmpty ? ["  none"] : PeersText.lines(peers, limit: peersMax, indent: 2, names: names, style: style.uncolored)
        if peers.count > peersMax {
            lines += PeersText.summary(peers, count: count, troubled: status.peersTroubled).map { "  \($0)" } + ["  `mat peers` lists them"]
        }
        return style.page(lines)
    }

    // MARK: Homes

    private static func homeLines(_ home: HomeReport, hasAddress: Bool, _ style: TextStyle) -> [String] {
        var facts: [(String, String)] = []
        facts.append(("state", home.state == "registered" ? style.good(registration(home)) : style.bad(unregistered(home, hasAddress: hasAddress))))
        if let problem = home.problem {
            facts.append(("problem", style.bad(problem)))
            if let remedy = home.remedy { facts.append(("remedy", remedy)) }
        }
        // What is registered outlives the network that it names.
        let places = hasAddress || home.locators.isEmpty ? nil : "nowhere now; registered at "
        facts.append(("reachable at", (places ?? "") + (list(home.locators) ?? "nowhere yet")))
        facts.append(("servers", list(home.servers) ?? "none found yet"))
        let end = home.certificateNotAfterMilliseconds
        let text = "valid until \(Quantity.date(unixMilliseconds: end))"
        if end == 0 {
            // Nothing is known of it.
        } else if home.certificateEndsSoon, home.ageMilliseconds == nil {
            facts.append(("certificate", style.bad("\(text); no server has answered yet, which may renew it")))
        } else if home.certificateEndsSoon {
            facts.append(("certificate", style.bad("\(text), and its server has not renewed it")))
            facts.append(("remedy", "have the server's operator run `mat enrol \(home.address)` again"))
        } else {
            facts.append(("certificate", text))
        }
        let width = facts.map(\.0.count).max() ?? 0
        return [style.head("Home address \(home.address)")]
            + facts.flatMap { style.folded("  \($0.0)\(String(repeating: " ", count: width - $0.0.count))  \($0.1)", indent: width + 4) }
    }

    private static func registration(_ home: HomeReport) -> String {
        let age = home.ageMilliseconds.map { ", confirmed \(Quantity.duration(milliseconds: $0)) ago" } ?? ""
        let left = home.expiresInMilliseconds.map { ", good for \(Quantity.duration(milliseconds: $0))" } ?? ""
        return "registered\(age)\(left)"
    }

    /// The phases by their names inside matd, and what they mean.
    private static func unregistered(_ home: HomeReport, hasAddress: Bool) -> String {
        let next = home.nextTryMilliseconds.map { Quantity.duration(milliseconds: $0) }
        return switch home.state {
        case "waiting":
            !hasAddress
                ? "waiting for a usable mobile address"
                : home.servers.isEmpty ? "waiting for DNS to name a server\(next.map { ", asked again in \($0)" } ?? "")" : "about to register"
        case "proving": "showing the server that its mobile addresses are its own"
        case "updating": "registering"
        case "pausing": next.map { "failed; next try in \($0)" } ?? "failed; will try again"
        default: home.state
        }
    }

    private static func list(_ texts: [String]) -> String? { texts.isEmpty ? nil : texts.joined(separator: ", ") }

    // MARK: Own mobile addresses

    /// What is held against an address; nothing in the usual case.
    private static func path(_ locator: LocatorReport, _ style: TextStyle) -> String {
        let failures = locator.failures > 1 ? ", failed \(locator.failures) times lately" : ""
        let trustedIn = locator.trustedInMilliseconds.map { Quantity.duration(milliseconds: $0) } ?? "0s"
        switch locator.state {
        case "dead":
            let since = locator.silentMilliseconds.map { " since \(Quantity.duration(milliseconds: $0))" } ?? ""
            let next = locator.nextCheckMilliseconds.map { ", checked again in \(Quantity.duration(milliseconds: $0))" } ?? ""
            return style.bad("dead\(since)\(next)\(failures)")
        case "returning": return "answers again, trusted in \(trustedIn)\(failures)"
        case "flapping": return "comes and goes, trusted in \(trustedIn)"
        case "refused": return style.bad("not usable: \(locator.reason ?? "the IMS refuses it"), tried again in \(trustedIn)")
        default:
            return [locator.translation?.text, locator.deprecated ? "deprecated: used last" : nil, locator.reason].compactMap { $0 }
                .joined(separator: "; ")
        }
    }

    private static func locatorLines(_ status: NodeReport, _ style: TextStyle) -> [String] {
        let chosen = status.chosenInterface
        var table = TextTable([("INTERFACE", .left), ("MOBILE ADDRESS", .left), ("", .left), ("", .left)])
        let preferred = chosen ?? status.locators.first?.interface
        for locator in status.locators {
            let isPreferred = locator.interface == preferred
            table.add([
                locator.interface, locator.address, isPreferred ? (chosen == nil ? "preferred" : "chosen by `mat handover`") : "",
                path(locator, style),
            ])
        }
        let head = style.head("Mobile addresses")
        var lines =
            table.isEmpty
            ? [head, "  none: no interface has a usable address; see `ip address`, and `interfaces` in matd.yaml"]
            : [head] + table.lines(indent: 2)
        for unused in status.unusedAddresses { lines.append("  \(unused.interface)  \(unused.address) is not used: \(unused.reason)") }
        for router in status.silentRouters {
            let instead = router.instead.map { "; \($0) is used instead" } ?? ", nor does another"
            lines.append("  " + style.bad("router \(router.address) on \(router.interface) does not answer\(instead)"))
        }
        return lines + ruleLines(status.routingRules, style)
    }

    /// The relays of the home addresses; nothing if there are none.
    private static func relayLines(_ relays: [RelayReport], _ style: TextStyle) -> [String] {
        guard !relays.isEmpty else { return [] }
        var table = TextTable([("RELAY", .left), ("FOR", .left), ("STATE", .left)])
        table.spills = [1, 2]
        for relay in relays { table.add([relay.address ?? relay.addresses.joined(separator: ", "), relay.home, state(relay, style)]) }
        return ["", style.head("Relays")] + table.lines(indent: 2, style)
    }

    /// Of a node that peers reach by relays alone.
    private static func hiddenLines(_ status: NodeReport, _ style: TextStyle) -> [String] {
        var lines = (status.relays ?? []).isEmpty ? [""] : []
        lines.append("  peers do not learn where this host is: their packets go by relays alone (paths: relay-only)")
        if !(status.relays ?? []).contains(where: { $0.state == .bound }) {
            lines.append("  " + style.bad("and none holds a binding, so nobody reaches this host: name a relay in the zone or in matd.yaml"))
        }
        return lines
    }

    private static func gateway(_ relay: RelayReport) -> String {
        switch relay.gateway {
        case "routed": ", gateway to plain hosts"
        case "source-nat": ", gateway to plain hosts with source translation"
        default: ""
        }
    }

    private static func state(_ relay: RelayReport, _ style: TextStyle) -> String {
        switch relay.state {
        case .notNeeded: "not needed: peers reach this host as it is"
        case .asked: "being asked"
        case .bound:
            style.good("bound") + (relay.locator.map { " from \($0)" } ?? "") + (relay.observed.map { ", seen at \($0)" } ?? "") + gateway(relay)
        case .unlisted: style.bad("bound, but the mapping server takes no record that lists it: see accept-relays in its imsd.yaml")
        case .silent: style.bad("does not answer")
        case .refused: style.bad("refused\(relay.reason.map { ": \($0)" } ?? "")")
        case .unreachable: style.bad("has no address of a family that this host has")
        }
    }

    /// Other programs' routing rules that want all traffic, and what is made of it.
    private static func ruleLines(_ rules: RoutingRulesReport, _ style: TextStyle) -> [String] {
        var lines: [String] = []
        if !rules.before.isEmpty {
            lines += ["", style.bad("Routing rules of another program come before MAT's and take its packets")]
            lines += rules.before.map { "  \($0)" }
            lines.append("  remedy: give them a priority above \(rules.base + 16), or set routing-rules: first in matd.yaml")
        }
        if !rules.passed.isEmpty {
            lines += ["", "Another program's routing rules take all traffic but MAT's: connections with peers and signalling do not go its way"]
            lines += rules.passed.map { "  \($0)" }
            lines.append("  to have it otherwise, set routing-rules: fixed in matd.yaml")
        }
        return lines
    }
}
