import IMS
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
            let most = prefix["mappingsMax"]?.int
            let count = prefix["mappings"]?.int.map { "  \(Quantity.count($0, "mapping"))\(most.map { " of \($0)" } ?? "")" } ?? ""
            let line = "  \(prefix["prefix"]?.string ?? "?")\(count)\(mobile.isEmpty ? "" : "  at \(mobile.joined(separator: ", "))")"
            let isFull = most.map { $0 <= prefix["mappings"]?.int ?? 0 } ?? false
            lines.append(isFull ? style.bad(line + "  full: more are refused") : line)
        }
        lines += ["", style.head("Keys")]
        var keys = TextTable([("ID", .left), ("PUBLIC KEY", .left), ("USE", .left), ("CERTIFICATES", .right)])
        for key in status["keys"]?.array ?? [] {
            keys.add([
                key["id"]?.string ?? "?", key["publicKey"]?.string ?? "?", key["use"]?.string ?? "", number(key["certificates"]),
            ])
        }
        lines += keys.lines(indent: 2)
        if status["canEnrol"]?.bool == false { lines.append("  no signing key here: certificates are issued elsewhere") }
        lines += certificates(status["certificates"], style)
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
            ("mappings", "mappings"), ("  expired", "mappingsExpired"), ("  withdrawn", "mappingsWithdrawn"), ("enrolled, not seen yet", "unseen"), ("remembered", "remembered"), ("  unconfirmed", "rememberedUnconfirmed"),
            ("subscriptions", "subscriptions"), ("notifies in progress", "notifiesPending"),
            ("pushes in progress", "pushesPending"),
        ] { table.add([label, number(status[key])]) }
        lines += ["", style.head("Holds")] + table.lines(indent: 2).dropFirst()
        return (lines + [""] + traffic(status["counters"], style)).joined(separator: "\n") + "\n"
    }

    private static func certificates(_ counts: JSONValue?, _ style: TextStyle) -> [String] {
        var lines: [String] = []
        if let ending = counts?["endingSoon"]?.int, ending > 0 {
            let ended = counts?["ended"]?.int.flatMap { $0 > 0 ? ", \($0) of them have ended" : nil } ?? ""
            lines.append("  " + style.bad("\(Quantity.count(ending, "certificate")) end within 30 days, renewed by nobody\(ended)"))
            lines.append("  remedy: find out why these nodes do not register (the log names them), or enrol them anew")
        }
        if let revoked = counts?["revoked"]?.int, revoked > 0 { lines.append("  \(Quantity.count(revoked, "home address", "es")) revoked") }
        return lines
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

    /// - Parameter withHead: whether columns get their heads, and nothing is said to be nothing; not for further pages.
    static func list(_ list: JSONValue, now: Now, _ style: TextStyle = .plain, withHead: Bool = true) -> String {
        let mappings = list["mappings"]?.array ?? []
        guard !mappings.isEmpty else { return withHead ? "no mappings\n" : "" }
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
        if !withHead { lines.removeFirst() }
        if let next = list["next"]?.string { lines.append("\(list["total"]?.int ?? 0) are held in all; more with --after \(next)") }
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
        if let end = mapping["certificate"]?["notAfter"]?.int, mapping["isRevoked"]?.bool != true {
            let text = "valid until \(Quantity.date(unixSeconds: end / 1000))"
            let isEnding = mapping["certificate"]?["endsSoon"]?.bool ?? false
            facts.append(("certificate", isEnding ? style.bad("\(text), renewed by nobody") : text))
            if let id = mapping["certificate"]?["id"]?.string {
                facts.append(("its id", "\(id), signed with key \(mapping["certificate"]?["issuer"]?.string ?? "?")"))
            }
        }
        if let key = mapping["certificate"]?["nodeKey"]?.string, mapping["isRevoked"]?.bool != true { facts.append(("node's key", key)) }
        for subscriber in mapping["subscribers"]?.array ?? [] { facts.append(("subscriber", subscriber.string ?? "?")) }
        let width = facts.map(\.0.count).max() ?? 0
        let lines = facts.map { "  \($0.0)\(String(repeating: " ", count: width - $0.0.count))  \($0.1)" }
        return ([style.head(mapping["hoa"]?.string ?? "?")] + lines).joined(separator: "\n") + "\n"
    }

    // MARK: revoke and import

    static func revocation(_ result: JSONValue, _ style: TextStyle = .plain) -> String {
        let revoked = result["revoked"]?.array?.compactMap(\.string) ?? []
        let already = result["already"]?.array?.compactMap(\.string) ?? []
        var lines = revoked.map { "\($0) is revoked: its certificates are refused, and its mapping is withdrawn" }
        lines += already.map { "\($0) was revoked before" }
        if lines.isEmpty { lines = ["nothing to revoke"] }
        return lines.joined(separator: "\n") + "\n"
    }

    static func transfer(_ outcome: TransferOutcome, isTrial: Bool, _ style: TextStyle = .plain) -> String {
        var lines = outcome.skipped.map { style.bad("skipped \($0.what): \($0.reason)") }
        if outcome.skippedCount > outcome.skipped.count { lines.append("... and \(outcome.skippedCount - outcome.skipped.count) more") }
        if isTrial {
            lines.append(outcome.skippedCount == 0 ? "nothing would be skipped" : "\(outcome.skippedCount) would be skipped; nothing was taken")
        } else {
            lines.append(
                "taken \(outcome.taken), held already \(outcome.same), older than what is held \(outcome.older), skipped \(outcome.skippedCount)")
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func places(_ mapping: JSONValue) -> String {
        let moas = mapping["locators"]?.array?.compactMap { $0["moa"]?.string } ?? []
        return moas == [mapping["hoa"]?.string ?? ""] ? "home" : moas.joined(separator: ", ")
    }

    private static func state(_ mapping: JSONValue) -> String {
        if mapping["isUnseen"]?.bool == true { return "enrolled, not seen yet" }
        if mapping["isRevoked"]?.bool == true { return "revoked" }
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
