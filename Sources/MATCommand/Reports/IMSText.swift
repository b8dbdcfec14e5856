import IMS
import MATControl
import MATSignal

/// `mat ims` for people, from what imsd says.
enum IMSText {
    // MARK: status

    static func status(_ status: IMSStatusReport, _ style: TextStyle = .plain) -> String {
        var lines = ["imsd \(status.version), up \(Quantity.duration(milliseconds: status.uptimeMilliseconds)), port \(status.port)"]
        lines += ["", style.head("Prefixes")]
        for prefix in status.prefixes {
            let most = prefix.mappingsMax
            let count = "\(Quantity.count(Int64(prefix.mappings), "mapping"))\(most.map { " of \($0)" } ?? "")"
            let mobile = prefix.mobilePrefixes.isEmpty ? "" : "  at \(prefix.mobilePrefixes.joined(separator: ", "))"
            let line = "  \(prefix.prefix)  \(count)\(mobile)"
            let isFull = most.map { $0 <= prefix.mappings } ?? false
            lines.append(isFull ? style.bad(line + "  full: more are refused") : line)
        }
        lines += ["", style.head("Keys")]
        var keys = TextTable([("ID", .left), ("PUBLIC KEY", .left), ("USE", .left), ("CERTIFICATES", .right)])
        keys.spills = [1]
        for key in status.keys { keys.add([key.id, key.publicKey, key.use, "\(key.certificates)"]) }
        lines += keys.lines(indent: 2, style.uncolored)
        if !status.canEnrol { lines.append("  no signing key here: certificates are issued elsewhere") }
        lines += certificates(status.certificates, style)
        lines += ["", style.head("Store"), "  \(status.store.path)"]
        if let reason = status.store.unavailable {
            lines.append("  " + style.bad("takes no change: \(reason)"))
            lines.append("  updates are refused with this reason; queries are answered from memory")
        } else if status.store.isLoading {
            lines.append("  still being read: what is not known yet is answered with \"try later\"")
        } else if let failure = status.store.lastFailure {
            lines.append("  " + style.bad("last failure: \(failure)"))
            lines.append(
                "  remedy: free space on its file system and the right to write there; imsd answers again as soon as it can")
        }
        var table = TextTable([("", .left), ("", .right)])
        for (label, count) in [
            ("mappings", status.mappings), ("  expired", status.mappingsExpired), ("  withdrawn", status.mappingsWithdrawn),
            ("enrolled, not seen yet", status.unseen), ("remembered", status.remembered), ("  unconfirmed", status.rememberedUnconfirmed),
            ("subscriptions", status.subscriptions), ("bindings", status.bindings), ("notifies in progress", status.notifiesPending),
            ("pushes in progress", status.pushesPending),
        ] { table.add([label, "\(count)"]) }
        lines += ["", style.head("Holds")] + table.lines(indent: 2).dropFirst()
        return style.page(lines + [""] + traffic(status.counters, style))
    }

    private static func certificates(_ counts: IMSStatusReport.Certificates, _ style: TextStyle) -> [String] {
        var lines: [String] = []
        if counts.endingSoon > 0 {
            let ended = counts.ended > 0 ? ", \(counts.ended) of them have ended" : ""
            let ending = Quantity.count(Int64(counts.endingSoon), "certificate")
            lines.append("  " + style.bad("\(ending) end within 30 days, renewed by nobody\(ended)"))
            lines.append("  remedy: find out why these nodes do not register (the log names them), or enrol them anew")
        }
        if counts.revoked > 0 { lines.append("  \(Quantity.count(Int64(counts.revoked), "home address", "es")) revoked") }
        return lines
    }

    private static func traffic(_ counters: IMSStatusReport.Counters, _ style: TextStyle) -> [String] {
        var table = TextTable([
            ("REQUEST", .left), ("RECEIVED", .right), ("ANSWERED WITH", .left), ("SENT", .right), ("ITS ANSWERS", .right),
        ])
        table.spills = [2]
        func number(_ counts: [String: UInt64], _ type: MessageType) -> String {
            guard let count = counts[type.description], count > 0 else { return "" }
            return "\(count)"
        }
        for type in MessageType.allCases where type.isRequest {
            // Answers stand beside what they answer.
            let answers = counters.answered[type.response.description] ?? [:]
            let row = [
                number(counters.received, type), answers.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", "),
                number(counters.sent, type), number(counters.received, type.response),
            ]
            if row.contains(where: { !$0.isEmpty }) { table.add([type.description] + row) }
        }
        var lines = [style.head("Messages")] + (table.isEmpty ? ["  none yet"] : table.lines(indent: 2, style.uncolored))
        for (label, count) in [
            ("malformed", counters.malformed), ("of unknown type", counters.unknownTypes), ("dropped", counters.dropped),
            ("pushes unanswered", counters.pushesUnanswered), ("send failures", counters.sendFailures),
        ] where count > 0 { lines.append("  \(label): \(count)") }
        return lines
    }

    // MARK: list and show

    /// - Parameter withHead: whether columns get their heads, and nothing is said to be nothing; not for further pages.
    static func list(_ list: MappingListReport, now: Now, _ style: TextStyle = .plain, withHead: Bool = true) -> String {
        guard !list.mappings.isEmpty else { return withHead ? "no mappings\n" : "" }
        var table = TextTable([
            ("HOME ADDRESS", .left), ("AT", .left), ("STATE", .left), ("EXPIRES IN", .right), ("REGISTERED", .right),
        ])
        table.yields = [4: 1]
        table.spills = [1]
        for mapping in list.mappings {
            table.add([
                mapping.hoa, places(mapping), state(mapping), left(mapping.expiresMilliseconds, now), age(mapping.updatedAtMilliseconds, now),
            ])
        }
        var lines = table.lines(style)
        if !withHead { lines.removeFirst() }
        if let next = list.next { lines.append("\(list.total) are held in all; more with --after \(IPPrefix(next)?.shortText ?? next)") }
        return style.page(lines)
    }

    static func mapping(_ mapping: MappingReport, now: Now, _ style: TextStyle = .plain) -> String {
        var facts: [(String, String)] = [("state", state(mapping))]
        for locator in mapping.locators { facts.append(("at", "\(locator.moa)  preference \(locator.preference)")) }
        for endpoint in mapping.endpoints ?? [] { facts.append(("endpoint", "\(endpoint.endpoint)  preference \(endpoint.preference)")) }
        for relay in mapping.relays ?? [] { facts.append(("relay", "\(relay.endpoint)  preference \(relay.preference)")) }
        if let sequence = mapping.sequence { facts.append(("sequence", "\(sequence)")) }
        if let issued = mapping.issuedMilliseconds {
            facts.append(("issued", "\(Quantity.date(unixMilliseconds: issued)), \(age(issued, now)) ago"))
        }
        if let expires = mapping.expiresMilliseconds { facts.append(("expires", Quantity.date(unixMilliseconds: expires))) }
        if let source = mapping.updateSource { facts.append(("registered from", source)) }
        if let endpoint = mapping.boundAt { facts.append(("bound at", endpoint)) }
        if let certificate = mapping.certificate, !mapping.isRevoked {
            let text = "valid until \(Quantity.date(unixMilliseconds: certificate.notAfterMilliseconds))"
            facts.append(("certificate", certificate.endsSoon ? style.bad("\(text), renewed by nobody") : text))
            facts.append(("its id", "\(certificate.id), signed with key \(certificate.issuer)"))
            facts.append(("node's key", certificate.nodeKey))
        }
        for subscriber in mapping.subscribers ?? [] { facts.append(("subscriber", subscriber)) }
        let width = facts.map(\.0.count).max() ?? 0
        let lines = facts.map { "  \($0.0)\(String(repeating: " ", count: width - $0.0.count))  \($0.1)" }
        return style.page([style.head(mapping.hoa)] + lines)
    }

    // MARK: revoke and import

    /// - Parameter isTrial: nothing was done; `revoked` are those that would be.
    static func revocation(_ result: RevocationReport, isTrial: Bool = false, _ style: TextStyle = .plain) -> String {
        var lines = result.revoked.map {
            isTrial ? "\($0) would be revoked" : "\($0) is revoked: its certificates are refused, and its mapping is withdrawn"
        }
        lines += result.already.map { "\($0) was revoked before" }
        if lines.isEmpty { lines = ["nothing to revoke"] }
        return style.page(lines)
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
        return style.page(lines)
    }

    private static func places(_ mapping: MappingReport) -> String {
        let moas = mapping.locators.map(\.moa)
        let others = (mapping.endpoints ?? []).map(\.endpoint) + (mapping.relays ?? []).map { "relay \($0.endpoint)" }
        return ((moas == [mapping.hoa] ? ["home"] : moas) + others).joined(separator: ", ")
    }

    private static func state(_ mapping: MappingReport) -> String {
        if mapping.isUnseen == true { return "enrolled, not seen yet" }
        if mapping.isRevoked { return "revoked" }
        if mapping.isWithdrawn { return "withdrawn" }
        if mapping.isExpired { return "expired" }
        if !mapping.isRegisteredHere { return mapping.isConfirmed == false ? "remembered, unconfirmed" : "remembered from its own IMS" }
        return "registered"
    }

    private static func left(_ expires: UInt64?, _ now: Now) -> String {
        expires.map { Quantity.duration(seconds: (Int64(clamping: $0) - Int64(clamping: now.wallMilliseconds)) / 1000) } ?? "-"
    }

    private static func age(_ time: UInt64?, _ now: Now) -> String {
        time.map { Quantity.duration(seconds: (Int64(clamping: now.wallMilliseconds) - Int64(clamping: $0)) / 1000) } ?? "-"
    }
}
