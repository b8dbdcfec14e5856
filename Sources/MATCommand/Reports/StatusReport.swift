import MATRuntime

/// `mat status` for people, from what matd says. Fields that a matd of another version leaves out are left out here.
enum StatusReport {
    static func text(_ status: JSONValue, _ style: TextStyle = .plain) -> String {
        var lines: [String] = []
        let peers = status["peers"]?.array ?? []
        let uptime = status["uptimeSeconds"]?.int.map { "up \(Quantity.duration(seconds: $0))" }
        let isRegistered = status["registered"]?.bool ?? false
        let facts = [isRegistered ? style.good("registered") : style.bad("not registered"), uptime, handovers(status)].compactMap
        { $0 }
        lines.append("matd is \(facts.joined(separator: ", "))")
        for home in status["homes"]?.array ?? [] { lines += [""] + homeLines(home, style) }
        lines += [""] + locatorLines(status, style)
        lines += NamesReport.lines(status, style)
        if let waiting = status["resolving"]?.int, waiting > 0 {
            lines += ["", "\(Quantity.count(waiting, "destination")) being looked up"]
        }
        if let repairs = status["repairs"]?.int, repairs > 0 {
            lines += ["", "\(Quantity.count(repairs, "repair")) to the kernel's tables since the start: something else changes them"]
            if let last = status["lastRepair"]?.string { lines.append("  the last: \(last)") }
        }
        let count = status["peersCount"]?.int ?? Int64(peers.count)
        lines += ["", style.head(count > peers.count ? "Peers (\(count); here are those with the latest traffic)" : "Peers (\(count))")]
        lines += peers.isEmpty ? ["  none"] : PeersReport.lines(peers, indent: 2)
        return lines.joined(separator: "\n") + "\n"
    }

    private static func handovers(_ status: JSONValue) -> String? {
        status["counters"]?["handovers"]?.int.map { Quantity.count($0, "handover") }
    }

    // MARK: Homes

    private static func homeLines(_ home: JSONValue, _ style: TextStyle) -> [String] {
        var facts: [(String, String)] = []
        let state = home["state"]?.string ?? "unknown"
        facts.append(("state", state == "registered" ? style.good(registration(home)) : style.bad(unregistered(state))))
        if let problem = home["problem"]?.string {
            facts.append(("problem", style.bad(problem)))
            facts.append(("remedy", Remedy.of(problem, home: home["address"]?.string ?? "HOA")))
        }
        facts.append(("reachable at", list(home["locators"]) ?? "nowhere yet"))
        facts.append(("servers", list(home["servers"]) ?? "none found yet"))
        if let end = home["certificateNotAfter"]?.int {
            let text = "valid until \(Quantity.date(unixSeconds: end))"
            if home["certificateEndsSoon"]?.bool == true {
                facts.append(("certificate", style.bad("\(text), and its server has not renewed it")))
                facts.append(("remedy", "have the server's operator run `mat enrol \(home["address"]?.string ?? "HOA")` again"))
            } else {
                facts.append(("certificate", text))
            }
        }
        let width = facts.map(\.0.count).max() ?? 0
        return [style.head("Home address \(home["address"]?.string ?? "?")")]
            + facts.map { "  \($0.0)\(String(repeating: " ", count: width - $0.0.count))  \($0.1)" }
    }

    private static func registration(_ home: JSONValue) -> String {
        let age = home["ageSeconds"]?.int.map { ", confirmed \(Quantity.duration(seconds: $0)) ago" } ?? ""
        let left = home["expiresInSeconds"]?.int.map { ", good for \(Quantity.duration(seconds: $0))" } ?? ""
        return "registered\(age)\(left)"
    }

    /// The phases by their names inside matd, and what they mean.
    private static func unregistered(_ state: String) -> String {
        switch state {
        case "waiting": "waiting for a usable mobile address, and for DNS to name a server"
        case "proving": "showing the server that its mobile addresses are its own"
        case "updating": "registering"
        case "pausing": "failed; will try again"
        default: state
        }
    }

    private static func list(_ value: JSONValue?) -> String? {
        let texts = value?.array?.compactMap(\.string) ?? []
        return texts.isEmpty ? nil : texts.joined(separator: ", ")
    }

    // MARK: Own mobile addresses

    /// What is held against an address; nothing in the usual case.
    private static func path(_ locator: JSONValue, _ style: TextStyle) -> String {
        func seconds(_ key: String) -> String? { locator[key]?.int.map { Quantity.duration(seconds: $0) } }
        let failures = locator["failures"]?.int.flatMap { $0 > 1 ? ", failed \($0) times lately" : nil } ?? ""
        switch locator["state"]?.string {
        case "dead":
            let since = seconds("silentSeconds").map { " since \($0)" } ?? ""
            let next = seconds("nextCheckSeconds").map { ", checked again in \($0)" } ?? ""
            return style.bad("dead\(since)\(next)\(failures)")
        case "returning": return "answers again, trusted in \(seconds("trustedInSeconds") ?? "0s")\(failures)"
        case "flapping": return "comes and goes, trusted in \(seconds("trustedInSeconds") ?? "0s")"
        case "refused":
            return style.bad("not usable: \(locator["reason"]?.string ?? "the IMS refuses it"), tried again in \(seconds("trustedInSeconds") ?? "0s")")
        default:
            let notes = [locator["deprecated"]?.bool == true ? "deprecated: used last" : nil, locator["reason"]?.string]
            return notes.compactMap { $0 }.joined(separator: "; ")
        }
    }

    private static func locatorLines(_ status: JSONValue, _ style: TextStyle) -> [String] {
        let chosen = status["chosenInterface"]?.string
        var table = TextTable([("INTERFACE", .left), ("MOBILE ADDRESS", .left), ("", .left), ("", .left)])
        let locators = status["locators"]?.array ?? []
        let preferred = chosen ?? locators.first?["interface"]?.string
        for locator in locators {
            let interface = locator["interface"]?.string ?? "?"
            let isPreferred = interface == preferred
            table.add([
                interface, locator["address"]?.string ?? "?",
                isPreferred ? (chosen == nil ? "preferred" : "chosen by `mat handover`") : "", path(locator, style),
            ])
        }
        let head = style.head("Mobile addresses")
        var lines = table.isEmpty
            ? [head, "  none: no interface has a usable address; see `ip address`, and `interfaces` in matd.yaml"]
            : [head] + table.lines(indent: 2)
        for unused in status["unusedAddresses"]?.array ?? [] {
            lines.append("  \(unused["interface"]?.string ?? "?")  \(unused["address"]?.string ?? "?") is not used: \(unused["reason"]?.string ?? "?")")
        }
        for router in status["silentRouters"]?.array ?? [] {
            let instead = router["instead"]?.string.map { "; \($0) is used instead" } ?? ", nor does another"
            lines.append("  " + style.bad("router \(router["address"]?.string ?? "?") on \(router["interface"]?.string ?? "?") does not answer\(instead)"))
        }
        return lines + ruleLines(status, style)
    }

    /// Other programs' routing rules that want all traffic, and what is made of it.
    private static func ruleLines(_ status: JSONValue, _ style: TextStyle) -> [String] {
        func rules(_ key: String) -> [String] { status["routingRules"]?[key]?.array?.compactMap(\.string) ?? [] }
        var lines: [String] = []
        if !rules("before").isEmpty {
            lines += ["", style.bad("Routing rules of another program come before MAT's and take its packets")]
            lines += rules("before").map { "  \($0)" }
            lines.append("  remedy: give them a priority above \((status["routingRules"]?["base"]?.int ?? 0) + 16), or set routing-rules: first in matd.yaml")
        }
        if !rules("passed").isEmpty {
            lines += ["", "Another program's routing rules take all traffic but MAT's: connections with peers and signalling do not go its way"]
            lines += rules("passed").map { "  \($0)" }
            lines.append("  to have it otherwise, set routing-rules: fixed in matd.yaml")
        }
        return lines
    }
}
