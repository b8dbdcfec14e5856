import MATRuntime
import MATSignal

/// `mat ims` for people, from what imsd says.
enum IMSReport {
    // MARK: status

    static func status(_ status: JSONValue, _ style: TextStyle = .plain) -> String {
        var lines: [String] = []
        let uptime = status["uptimeSeconds"]?.int.map { ", up \(Quantity.duration(seconds: $0))" } ?? ""
        lines.append("imsd \(status["version"]?.string ?? "")\(uptime), port \(status["port"]?.int ?? 6288)")
        lines += ["", style.head("Prefixes")]
        for prefix in status["prefixes"]?.array ?? [] {
            let mobile = prefix["mobilePrefixes"]?.array?.compactMap(\.string) ?? []
            lines.append("  \(prefix["prefix"]?.string ?? "?")\(mobile.isEmpty ? "" : "  at \(mobile.joined(separator: ", "))")")
        }
        lines += ["", style.head("Keys")]
        for key in status["keys"]?.array ?? [] {
            lines.append("  \(key["id"]?.string ?? "?")  \(key["publicKey"]?.string ?? "?")")
        }
        if status["canEnrol"]?.bool == false { lines.append("  no signing key here: certificates are issued elsewhere") }
        lines += ["", style.head("Store"), "  \(status["store"]?["path"]?.string ?? "?")"]
        if let reason = status["store"]?["unavailable"]?.string {
            lines.append("  " + style.bad("takes no change: \(reason)"))
            lines.append("  updates are refused with this reason; queries are answered from memory")
        } else if status["store"]?["isLoading"]?.bool == true {
            lines.append("  still being read: what is not known yet is answered with \"try later\"")
        } else if let failure = status["store"]?["lastFailure"]?.string {
            lines.append("  " + style.bad("last failure: \(failure)"))
            lines.append(
                "  remedy: free space on its file system and the right to write there; imsd answers again as soon as it can")
        }
        var table = TextTable([("", .left), ("", .right)])
        for (label, key) in [
            ("mappings", "mappings"), ("remembered", "remembered"), ("  unconfirmed", "rememberedUnconfirmed"),
            ("subscriptions", "subscriptions"), ("notifies in progress", "notifiesPending"),
            ("pushes in progress", "pushesPending"),
        ] { table.add([label, number(status[key])]) }
        lines += ["", style.head("Holds")] + table.lines(indent: 2).dropFirst()
        return (lines + [""] + traffic(status["counters"], style)).joined(separator: "\n") + "\n"
    }

    private static func traffic(_ counters: JSONValue?, _ style: TextStyle) -> [String] {
        var table = TextTable([
            ("REQUEST", .left), ("RECEIVED", .right), ("ANSWERED WITH", .left), ("SENT", .right), ("ITS ANSWERS", .right),
        ])
        for type in MessageType.allCases where type.isRequest {
            // Answers stand beside what they answer.
            let answers = counters?["answered"]?[type.response.description]?.object ?? [:]
            let row = [
                number(counters?["received"]?[type.description], zero: ""),
                answers.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value.int ?? 0)" }.joined(separator: ", "),
                number(counters?["sent"]?[type.description], zero: ""),
                number(counters?["received"]?[type.response.description], zero: ""),
            ]
            if row.contains(where: { !$0.isEmpty }) { table.add([type.description] + row) }
        }
        var lines = [style.head("Messages")] + (table.isEmpty ? ["  none yet"] : table.lines(indent: 2))
        for (label, key) in [
            ("malformed", "malformed"), ("of unknown type", "unknownTypes"), ("dropped", "dropped"),
            ("pushes unanswered", "pushesUnanswered"),
            ("send failures", "sendFailures"),
        ] {
            if let count = counters?[key]?.int, count > 0 { lines.append("  \(label): \(count)") }
        }
        return lines
    }

    private static func number(_ value: JSONValue?, zero: String = "0") -> String {
        guard let number = value?.int, number != 0 else { return zero }
        return "\(number)"
    }

    // MARK: list and show

    static func list(_ list: JSONValue, now: Now, _ style: TextStyle = .plain) -> String {
        let mappings = list["mappings"]?.array ?? []
        guard !mappings.isEmpty else { return "no mappings\n" }
        var table = TextTable([
            ("HOME ADDRESS", .left), ("AT", .left), ("STATE", .left), ("EXPIRES IN", .right), ("REGISTERED", .right),
        ])
        for mapping in mappings {
            table.add([
                mapping["hoa"]?.string ?? "?", places(mapping), state(mapping), left(mapping["expires"], now),
                age(mapping["updatedAt"], now),
            ])
        }
        var lines = table.lines(style)
        if let next = list["next"]?.int { lines.append("\(list["total"]?.int ?? 0) in all; more with --offset \(next)") }
        return lines.joined(separator: "\n") + "\n"
    }

    static func mapping(_ mapping: JSONValue, now: Now, _ style: TextStyle = .plain) -> String {
        var facts: [(String, String)] = [("state", state(mapping))]
        for locator in mapping["locators"]?.array ?? [] {
            facts.append(("at", "\(locator["moa"]?.string ?? "?")  preference \(locator["preference"]?.int ?? 0)"))
        }
        if let sequence = mapping["sequence"]?.int { facts.append(("sequence", "\(sequence)")) }
        if let issued = mapping["issued"]?.int {
            facts.append(("issued", "\(Quantity.date(unixSeconds: issued / 1000)), \(age(.int(issued), now)) ago"))
        }
        if let expires = mapping["expires"]?.int { facts.append(("expires", Quantity.date(unixSeconds: expires / 1000))) }
        if let source = mapping["updateSource"]?.string { facts.append(("registered from", source)) }
        if let end = mapping["certificate"]?["notAfter"]?.int {
            facts.append(("certificate", "valid until \(Quantity.date(unixSeconds: end / 1000))"))
        }
        if let key = mapping["certificate"]?["nodeKey"]?.string { facts.append(("node's key", key)) }
        for subscriber in mapping["subscribers"]?.array ?? [] { facts.append(("subscriber", subscriber.string ?? "?")) }
        let width = facts.map(\.0.count).max() ?? 0
        let lines = facts.map { "  \($0.0)\(String(repeating: " ", count: width - $0.0.count))  \($0.1)" }
        return ([style.head(mapping["hoa"]?.string ?? "?")] + lines).joined(separator: "\n") + "\n"
    }

    private static func places(_ mapping: JSONValue) -> String {
        let moas = mapping["locators"]?.array?.compactMap { $0["moa"]?.string } ?? []
        return moas == [mapping["hoa"]?.string ?? ""] ? "home" : moas.joined(separator: ", ")
    }

    private static func state(_ mapping: JSONValue) -> String {
        if mapping["isWithdrawn"]?.bool == true { return "withdrawn" }
        if mapping["isExpired"]?.bool == true { return "expired" }
        if mapping["isRegisteredHere"]?.bool == false {
            return mapping["isConfirmed"]?.bool == false ? "remembered, unconfirmed" : "remembered from its own IMS"
        }
        return "registered"
    }

    private static func left(_ expires: JSONValue?, _ now: Now) -> String {
        guard let expires = expires?.int else { return "-" }
        return Quantity.duration(seconds: (expires - Int64(clamping: now.wallMilliseconds)) / 1000)
    }

    private static func age(_ time: JSONValue?, _ now: Now) -> String {
        guard let time = time?.int else { return "-" }
        return Quantity.duration(seconds: (Int64(clamping: now.wallMilliseconds) - time) / 1000)
    }
}
