import MATCore
import MATRuntime
import MATSignal

/// `mat lookup` for people.
enum LookupReport {
    static func text(_ findings: LookupFindings, _ style: TextStyle = .plain) -> String {
        var lines = dns(findings, style)
        if !findings.queries.isEmpty { lines += [""] + queries(findings, style) }
        if let mapping = findings.mapping {
            lines += [""] + self.mapping(mapping, findings.now, style)
            lines += ["", style.head("Verification")]
            lines += findings.checks.map { check in
                "  " + (check.failure.map { style.bad("FAILED  \(check.name): \($0)") } ?? "\(style.good("ok"))  \(check.name)")
            }
        }
        lines.append("")
        switch findings.verdict {
        case .reachable(let places): lines.append(style.good("\(findings.hoa) \(whereabouts(places, of: findings.hoa))"))
        case .not(let what, let remedy):
            lines += [style.bad(what), "remedy: \(remedy)"]
        }
        return style.page(lines)
    }

    /// A sentence's end: "is at 203.0.113.10, then 203.0.113.74; takes encapsulated packets at 198.51.100.7:41000".
    private static func whereabouts(_ places: [MappingRecord.Place], of hoa: HomeAddress) -> String {
        let listed = Listed(places)
        let moas = listed.locators.map(\.moa)
        var parts: [String] = []
        if !moas.isEmpty {
            parts.append("is at " + (moas.map(\.address) == [hoa.address] ? "home" : moas.map(\.description).joined(separator: ", then ")))
        }
        if !listed.endpoints.isEmpty {
            parts.append("takes encapsulated packets at " + listed.endpoints.map(\.endpoint.description).joined(separator: ", then "))
        }
        if !listed.relays.isEmpty {
            parts.append("is reached through the relay " + listed.relays.map(\.endpoint.description).joined(separator: ", then "))
        }
        return parts.isEmpty ? "is where this version can't reach it: it lists nothing but locators of unknown kinds" : parts.joined(separator: "; ")
    }

    /// What a record lists, by kind.
    private struct Listed {
        typealias Place = (endpoint: Endpoint, preference: UInt8)

        var locators: [Locator] = []
        var endpoints: [Place] = []
        var relays: [Place] = []

        init(_ places: [MappingRecord.Place]) {
            for place in places {
                switch place {
                case .moa(let locator): locators.append(locator)
                case .endpoint(let endpoint, let preference): endpoints.append((endpoint, preference))
                case .relay(let relay, let preference): relays.append((relay, preference))
                case .unknown: break
                }
            }
        }
    }

    // MARK: DNS

    private static func dns(_ findings: LookupFindings, _ style: TextStyle) -> [String] {
        let head =
            [style.head("DNS")] + name("name", findings.name, style) + (findings.alias.map { name("alias of", $0, style) } ?? [])
            + ["  asked      \(findings.asked), \(Quantity.milliseconds(findings.dnsTook))"]
            + (findings.resolversDoubt.map { ["  doubt      " + style.bad($0)] } ?? [])
        switch findings.dns {
        case nil: return head
        case .absent?: return head + ["  found      nothing: neither type IMS (TYPE65400) nor SRV at _mat-ims._udp"]
        case .failed(let reason)?: return head + ["  found      " + style.bad("no answer: \(reason)")]
        case .unusable(let reason)?: return head + ["  found      " + style.bad(reason)]
        case .found(let servers)?:
            var table = TextTable([
                ("SERVER", .left), ("PRIORITY", .right), ("WEIGHT", .right), ("PORT", .right), ("ADDRESSES", .left),
            ])
            for server in servers.ordered {
                table.add([
                    "\(server.target)", "\(server.priority)", "\(server.weight)", "\(server.port)",
                    server.addresses.map(\.description).joined(separator: ", "),
                ])
            }
            let lifetime = Quantity.duration(seconds: servers.lifetime.components.seconds)
            let security =
                (servers.isAuthenticated ? "validated by DNSSEC" : "not validated by DNSSEC")
                + (!servers.isAuthenticated && findings.isAliasAuthenticated ? " (its alias is, what it leads to is not)" : "")
            // Beside them a reader has the servers; in which order they are tried is by their place.
            (table.spills, table.yields) = ([4], [1: 1, 2: 2])
            return head + ["  found      \(servers.form.rawValue), good for \(lifetime), \(security)"]
                + servers.keys.map { "  key        \(KeyFile.write($0))" }
                + servers.relays.map { "  relay      \($0.endpoints.map(\.description).joined(separator: ", "))" } + table.lines(indent: 2, style)
                + doubled(findings, style)
        }
    }

    /// A reverse name of IPv6 has a line of its own, whole, where there is no room behind the word.
    private static func name(_ word: String, _ name: DomainName, _ style: TextStyle) -> [String] {
        let (margin, text) = ("  " + word + String(repeating: " ", count: max(1, 11 - word.count)), "\(name)")
        guard let columns = style.columns, margin.count + text.count > columns else { return [margin + text] }
        return ["  " + word, "    " + style.shortened(text, indent: 4)]
    }

    private static func doubled(_ findings: LookupFindings, _ style: TextStyle) -> [String] {
        guard let server = findings.doubledServer else { return [] }
        return [
            "  " + style.bad("the zone lists \(server) more than once: lines of an earlier `mat zone`, with old keys or addresses, are still there"),
            "  remedy: take them out; `mat zone --into FILE` replaces its own, and names others",
        ]
    }

    // MARK: Queries

    private static func queries(_ findings: LookupFindings, _ style: TextStyle) -> [String] {
        var table = TextTable([("SERVER", .left), ("SEQUENCE", .right), ("SENT", .right), ("RTT", .right), ("ANSWER", .left)])
        for query in findings.queries {
            let (rtt, answer): (String, String)
            switch query.outcome {
            case .answered(let code, let took, let text):
                // A retransmitted question's answer may be to an earlier copy, so its time means little.
                rtt = query.tries == 1 ? Quantity.milliseconds(took) : "-"
                answer = "\(code)\(text.map { " (\($0))" } ?? "")"
            case .silent: (rtt, answer) = ("-", "none")
            case .unsendable(let reason): (rtt, answer) = ("-", "could not be sent: \(reason)")
            }
            table.add(["\(query.server)", "\(query.sequence)", "\(query.tries)x", rtt, answer])
        }
        (table.spills, table.yields) = ([4], [1: 1])
        return [style.head("MA Query")] + table.lines(indent: 2, style)
    }

    // MARK: Mapping

    private static func mapping(_ mapping: CertifiedMapping, _ now: Now, _ style: TextStyle) -> [String] {
        let record = mapping.record
        let certificate = mapping.certificate
        var lines = [style.head("Mapping of \(record.prefixLength == 128 ? "\(record.hoa)" : "\(record.prefix)")")]
        for place in record.places { lines.append("  " + self.place(place, home: record.hoa)) }
        if record.isWithdrawal { lines.append("  at         nowhere: withdrawn") }
        lines.append("  sequence   \(record.sequence)")
        lines.append(
            "  issued     \(Quantity.date(unixMilliseconds: record.issued)), \(Quantity.duration(seconds: seconds(from: record.issued, to: now.wallMilliseconds))) ago"
        )
        lines.append(
            "  expires    \(Quantity.date(unixMilliseconds: record.expires)), in \(Quantity.duration(seconds: seconds(from: now.wallMilliseconds, to: record.expires)))"
        )
        lines += [
            "", style.head("Certificate of \(certificate.prefixLength == 128 ? "\(certificate.hoa)" : "\(certificate.prefix)")"),
        ]
        lines.append(
            "  valid      \(Quantity.date(unixMilliseconds: certificate.notBefore)) to \(Quantity.date(unixMilliseconds: certificate.notAfter))"
        )
        lines.append("  node key   \(KeyFile.write(certificate.nodeKey))")
        return lines
    }

    private static func place(_ place: MappingRecord.Place, home: HomeAddress) -> String {
        switch place {
        case .moa(let locator):
            let note = locator.moa.address == home.address ? ", which is home" : ""
            return "at         \(locator.moa)  preference \(locator.preference)\(note)"
        case .endpoint(let endpoint, let preference):
            return "endpoint   \(endpoint)  preference \(preference): takes encapsulated packets there"
        case .relay(let relay, let preference):
            return "relay      \(relay)  preference \(preference): passes encapsulated packets on to it"
        case .unknown(let place):
            return "unknown    a locator of kind \(place.kind), which this version skips"
        }
    }

    /// Saturates: both come from the network.
    private static func seconds(from: UInt64, to: UInt64) -> Int64 { to > from ? Int64(clamping: (to - from) / 1000) : 0 }
}

// MARK: - JSON

extension LookupReport {
    /// docs/json/lookup.schema.json
    static func json(_ findings: LookupFindings) -> JSONValue {
        var result: [String: JSONValue] = [
            "hoa": .text(findings.hoa), "dns": dnsJSON(findings),
            "queries": .array(findings.queries.map(queryJSON)),
            "checks": .array(
                findings.checks.map {
                    [
                        "name": .string($0.name), "ok": .bool($0.failure == nil),
                        "failure": $0.failure.map(JSONValue.string) ?? .null,
                    ]
                }),
        ]
        if let mapping = findings.mapping {
            let listed = Listed(mapping.record.places)
            result["mapping"] = [
                "locators": .array(listed.locators.map { ["moa": .text($0.moa), "preference": .number($0.preference)] }),
                "endpoints": .array(listed.endpoints.map { ["endpoint": .text($0.endpoint), "preference": .number($0.preference)] }),
                "relays": .array(listed.relays.map { ["endpoint": .text($0.endpoint), "preference": .number($0.preference)] }),
                "sequence": .number(mapping.record.sequence), "issuedMilliseconds": .number(mapping.record.issued),
                "expiresMilliseconds": .number(mapping.record.expires),
            ]
            result["certificate"] = [
                "notBeforeMilliseconds": .number(mapping.certificate.notBefore), "notAfterMilliseconds": .number(mapping.certificate.notAfter),
                "nodeKey": .string(KeyFile.write(mapping.certificate.nodeKey)),
            ]
        }
        switch findings.verdict {
        case .reachable(let places):
            let listed = Listed(places)
            result["reachable"] = true
            result["locators"] = .array(listed.locators.map { JSONValue.text($0.moa) })
            result["endpoints"] = .array(listed.endpoints.map { JSONValue.text($0.endpoint) })
            result["relays"] = .array(listed.relays.map { JSONValue.text($0.endpoint) })
        case .not(let what, let remedy):
            result["reachable"] = false
            result["problem"] = .string(what)
            result["remedy"] = .string(remedy)
        }
        return .object(result)
    }

    /// To the microsecond.
    private static func milliseconds(_ duration: Duration) -> JSONValue { .double(Double(duration.nanosecondsSaturated / 1000) / 1000) }

    private static func dnsJSON(_ findings: LookupFindings) -> JSONValue {
        var result: [String: JSONValue] = [
            "name": .text(findings.name), "resolvers": .array(findings.resolvers.map(JSONValue.text)),
            "resolversFrom": findings.resolversFrom.map(JSONValue.string) ?? .null,
            "resolversDoubt": findings.resolversDoubt.map(JSONValue.string) ?? .null,
            "tookMilliseconds": milliseconds(findings.dnsTook),
        ]
        if let alias = findings.alias { result["alias"] = .text(alias) }
        switch findings.dns {
        case nil: break
        case .absent?: result["result"] = "absent"
        case .failed(let reason)?:
            result["result"] = "failed"
            result["reason"] = .string(reason)
        case .unusable(let reason)?:
            result["result"] = "unusable"
            result["reason"] = .string(reason)
        case .found(let servers)?:
            result["result"] = "found"
            result["form"] = .string(servers.form == .record ? "ims" : "srv")
            result["isAuthenticated"] = .bool(servers.isAuthenticated)
            result["goodForMilliseconds"] = .number(servers.lifetime.millisecondsSaturated)
            result["keys"] = .array(servers.keys.map { .string(KeyFile.write($0)) })
            result["relays"] = .array(servers.relays.map { .array($0.endpoints.map(JSONValue.text)) })
            result["servers"] = .array(
                servers.ordered.map {
                    [
                        "target": .text($0.target), "priority": .number($0.priority), "weight": .number($0.weight),
                        "port": .number($0.port),
                        "addresses": .array($0.addresses.map(JSONValue.text)),
                    ]
                })
        }
        return .object(result)
    }

    private static func queryJSON(_ query: LookupFindings.Query) -> JSONValue {
        var result: [String: JSONValue] = [
            "server": .text(query.server), "sequence": .number(query.sequence), "tries": .number(query.tries),
        ]
        switch query.outcome {
        case .answered(let code, let rtt, let text):
            result["code"] = .number(code.rawValue)
            result["answer"] = .text(code)
            if query.tries == 1 { result["rttMilliseconds"] = milliseconds(rtt) }
            if let text { result["text"] = .string(text) }
        case .silent: result["answer"] = .null
        case .unsendable(let reason):
            result["answer"] = .null
            result["error"] = .string(reason)
        }
        return .object(result)
    }
}
