import MATControl
import MATRuntime
import MATSignal

/// What was seen on the way of a packet, and what it amounts to. Pure: `TraceCommand` gathers it.
struct TraceFindings {
    /// What became of the packets that `mat trace` sent to the address itself, as any program would.
    enum Echo: Hashable {
        case answered(after: Duration)
        case silent(sent: Int)
        /// The kernel took none of them, or this user may send none.
        case unsendable(String)
    }

    var lookup: LookupFindings
    /// matd's state, or why there is none.
    var node: Result<NodeReport, CommandFailure>
    /// `nil` without matd.
    var traced: NodeTraceReport?
    /// Packets of the peer that came while its answer was awaited.
    var packetsCame: UInt64 = 0
    var echo: Echo?
    var hops: [TraceReport.Hop] = []

    var report: TraceReport {
        let steps = [nodeStep, dnsStep, imsStep, cacheStep, imtStep, routesStep, pathStep]
        var report = TraceReport(hoa: "\(lookup.hoa)", steps: steps, stopsAt: nil, hops: hops)
        report.stopsAt = report.stop?.stage
        return report
    }

    private typealias Step = TraceReport.Step

    /// Why nothing of matd is known.
    private var withoutNode: String {
        guard case .failure(let failure) = node else { return "nothing is mapped" }
        return failure.isForbidden ? "matd could not be asked" : failure.status == .unanswered ? "matd gave no answer" : "matd does not run"
    }

    // MARK: This host

    private var nodeStep: Step {
        switch node {
        case .failure(let failure) where failure.isForbidden || failure.status == .unanswered:
            return Step(
                .node, .doubt, failure.description,
                details: ["so what it and the kernel do with packets was not looked at, and none was sent"],
                remedy: failure.isForbidden ? "`sudo mat trace \(lookup.hoa)`" : "`systemctl status matd`")
        case .failure(let failure):
            return Step(
                .node, .stops, failure.description, remedy: "`mat doctor` says what matd lacks; while it does not run packets go as they went before")
        case .success(let report):
            let homes = report.homes.filter { IPAddress($0.address)?.family == lookup.hoa.family }
            guard !homes.isEmpty else {
                return Step(
                    .node, .stops, "this node has no home address of the family of \(lookup.hoa), so nothing of it is mapped",
                    remedy: "`mat join`, or have the operator of a mapping server enrol an address of that family")
            }
            guard !report.locators.isEmpty else {
                let unused = report.unusedAddresses.map { "\($0.address) on \($0.interface) is not used: \($0.reason)" }
                return Step(
                    .node, .stops, "this host has no usable mobile address; packets from home addresses wait", details: unused,
                    remedy: unused.isEmpty ? "connect it to a network" : "`interfaces` in matd.yaml may exclude them")
            }
            let places = report.locators.map { "\($0.address) (\($0.interface))" }.joined(separator: ", ")
            if let home = homes.first(where: { $0.state != "registered" }) {
                return Step(
                    .node, .doubt, "\(home.address) is not registered, so the other end may not find this node: \(home.problem ?? home.state)",
                    details: ["at \(places)"], remedy: home.remedy ?? "`mat status --wait 30`")
            }
            return Step(.node, .ok, "\(homes.map(\.address).joined(separator: ", ")) is registered, at \(places)")
        }
    }

    // MARK: Names and servers

    private var asked: [String] { [reverseName, "asked \(lookup.asked)"] + (lookup.resolversDoubt.map { [$0] } ?? []) }

    private var dnsStep: Step {
        let took = Quantity.milliseconds(lookup.dnsTook)
        switch lookup.dns {
        case .found(let found)?:
            let servers = found.ordered.map { server in "\(server.target) (\(server.addresses.map(\.description).joined(separator: ", ")))" }
            return Step(.dns, .ok, "names \(servers.joined(separator: ", then ")), in \(took)", details: asked)
        case .absent?, .failed?, .unusable?, nil:
            let (what, remedy) = lookup.verdict.words
            return Step(
                .dns, .stops, what, details: asked, remedy: remedy)
        }
    }

    private var reverseName: String { "\(lookup.name)\(lookup.alias.map { ", an alias of \($0)" } ?? "")" }

    private var imsStep: Step {
        guard case .found? = lookup.dns else { return Step(.ims, .skipped, "the DNS names none") }
        let asked = lookup.queries.map { query in
            switch query.outcome {
            case .answered(let code, let rtt, _): "\(query.server): \(code) in \(Quantity.milliseconds(rtt))"
            case .silent: "\(query.server): no answer to \(query.tries) tries"
            case .unsendable(let reason): "\(query.server): \(reason)"
            }
        }
        switch lookup.verdict {
        case .reachable(let places): return Step(.ims, .ok, "it is at \(places.map(\.named).joined(separator: ", then "))", details: asked)
        case .not(let what, let remedy): return Step(.ims, .stops, what, details: asked, remedy: remedy)
        }
    }

    // MARK: What matd knows

    private var cacheStep: Step {
        guard let traffic = traced?.traffic else { return Step(.cache, .skipped, withoutNode) }
        switch traffic.way {
        case .local: return Step(.cache, .ok, traffic.text)
        case .gateway: return Step(.cache, .ok, traffic.text)
        case .plain, .waits, .unknown:
            // Whether there is a path is another stage's.
            guard traffic.cause == .peer else { return Step(.cache, .stops, traffic.text, remedy: traffic.remedy) }
        case .mapped: break
        }
        guard let peer = traffic.peer else { return Step(.cache, .ok, traffic.text) }
        let age =
            "entered \(Quantity.duration(milliseconds: peer.ageMilliseconds)) ago, confirmed \(Quantity.duration(milliseconds: peer.refreshedAgoMilliseconds)) ago"
        if case .reachable(let places) = lookup.verdict, Set(places.map(\.named)) != Set(peer.locators) {
            return Step(
                .cache, .doubt,
                "matd has it at \(peer.locators.joined(separator: ", ")), its mapping server at \(places.map(\.named).joined(separator: ", ")): a move that has not reached this node",
                details: [age], remedy: "matd asks again by itself, at once if packets to it get no answer")
        }
        if traffic.way == .mapped, traffic.survives == .perhaps {
            return Step(.cache, .doubt, traffic.survivalReason ?? traffic.text, details: [age], remedy: traffic.remedy)
        }
        return Step(.cache, .ok, "matd has it at \(peer.locators.joined(separator: ", "))", details: [age])
    }

    // MARK: The kernel

    private var imtStep: Step {
        guard let traced, isPeer else { return Step(.imt, .skipped, "nothing is mapped") }
        guard traced.leaving != nil else { return Step(.imt, .skipped, "no path to it works, so its packets wait in matd") }
        let missing = traced.entries.filter { !$0.isThere }
        let lines = traced.entries.map { "\($0.isThere ? "" : "missing: ")\($0.purpose) (\($0.place))" }
        if let first = missing.first {
            return Step(
                .imt, .stops, "the kernel lacks what matd put there: \(first.purpose), in \(first.place)", details: lines,
                remedy: "`nft monitor` shows who removes it (a firewall script that flushes the ruleset); matd puts it back by itself")
        }
        return Step(
            .imt, .ok, traced.entries.count == 1 ? "its entry is in the kernel" : "its \(traced.entries.count) entries are in the kernel",
            details: lines)
    }

    private var routesStep: Step {
        guard let traced else { return Step(.routes, .skipped, withoutNode) }
        guard isPeer else { return Step(.routes, .skipped, "nothing is mapped") }
        var lines: [String] = []
        if let captured = traced.captured {
            lines.append("programs' packets: \(Self.words(captured))")
            if let failure = captured.failure {
                return Step(
                    .routes, .stops, "programs can't send to \(captured.to): \(failure)", details: lines,
                    remedy: "`ip route get \(captured.to)`, then `ip rule`: a rule or route of another program refuses it")
            }
            if !captured.isOwn {
                return Step(
                    .routes, .stops,
                    "programs' packets to \(captured.to) do not come to the translation: table \(captured.table) sends them \(Self.way(captured))",
                    details: lines,
                    remedy: "`ip rule` shows which rule is before matd's; `routing-rules: first` in matd.yaml puts matd's before it")
            }
        }
        guard let leaving = traced.leaving else { return Step(.routes, .skipped, "its packets wait in matd", details: lines) }
        lines.append("what leaves for it: \(Self.words(leaving))")
        if let failure = leaving.failure {
            return Step(
                .routes, .stops, "nothing can leave from \(leaving.from ?? "here") to \(leaving.to): \(failure)", details: lines,
                remedy: "`ip route get \(leaving.to)\(leaving.from.map { " from \($0)" } ?? "")` and `ip rule` show what refuses it")
        }
        return Step(.routes, .ok, "packets leave \(Self.way(leaving)) for \(leaving.to)", details: lines)
    }

    private static func words(_ route: NodeTraceReport.Route) -> String {
        let to = route.from.map { "\($0) -> \(route.to)" } ?? route.to
        return "\(to): \(route.failure ?? "\(way(route)), table \(route.table)")"
    }

    private static func way(_ route: NodeTraceReport.Route) -> String {
        let via = route.gateway.map { " via \($0)" } ?? ""
        return "by \(route.interface ?? "no link")\(via)"
    }

    // MARK: The network

    private var pathStep: Step {
        guard let traced, isPeer, let echo else { return Step(.path, .skipped, "nothing was sent") }
        let used = traced.why?.candidates.first(where: \.used)
        let how = used.map { "\($0.path.rawValue) to \($0.to)" } ?? "by no path"
        if traced.traffic.way != .mapped, let reason = traced.traffic.survivalReason, case .silent = echo {
            return Step(.path, .stops, reason, details: candidates, remedy: remedy ?? "`mat why \(lookup.hoa)` says what each path would need")
        }
        switch echo {
        case .answered(let time): return Step(.path, .ok, "\(lookup.hoa) answers, \(how), in \(Quantity.milliseconds(time))", details: candidates)
        case .unsendable(let reason):
            return Step(
                .path, .stops, "nothing can be sent to \(lookup.hoa): \(reason)", details: candidates,
                remedy: "run this as root; `mat why \(lookup.hoa)`")
        case .silent(let sent):
            if packetsCame > 0 {
                return Step(
                    .path, .ok, "\(lookup.hoa) does not answer to ping, but packets of it came meanwhile (\(packetsCame)), \(how)",
                    details: candidates)
            }
            let target = traced.leaving.map { $0.to } ?? "\(lookup.hoa)"
            let last = hops.last { $0.address != nil }
            let reach =
                last.map { hop in
                    hop.address == target || hop.address == "\(lookup.hoa)"
                        ? "; \(target) itself answers to other packets, so its host, or a firewall on it, drops these"
                        : "; the last that answers on the way to \(target) is \(hop.address ?? "?"), \(Quantity.count(Int64(hop.number), "hop")) away"
                } ?? (hops.isEmpty ? "" : "; no router on the way to \(target) says anything")
            return Step(
                .path, .stops, "\(Quantity.count(Int64(sent), "packet")) left for \(lookup.hoa), \(how), and nothing came back\(reach)",
                details: candidates,
                remedy: used?.remedy ?? remedy ?? "see that network and its firewall; `mat why \(lookup.hoa)` says what each path would need")
        }
    }

    /// Whether matd has it as a peer, with or without a path.
    private var isPeer: Bool { traced?.traffic.cause == .peer }

    private var candidates: [String] {
        (traced?.why?.candidates ?? []).map { "\($0.path.rawValue) to \($0.to)\($0.used ? " (used)" : ""): \($0.state)" }
    }

    private var remedy: String? { traced?.why?.candidates.compactMap(\.remedy).first ?? traced?.traffic.remedy }
}

extension MappingRecord.Place {
    /// As matd names it in its reports.
    fileprivate var named: String {
        switch self {
        case .moa(let locator): "\(locator.moa)"
        case .endpoint(let endpoint, _): "\(endpoint)"
        case .relay(let relay, _): "relay \(relay)"
        case .unknown(let place): "a place of kind \(place.kind)"
        }
    }
}

extension LookupFindings.Verdict {
    /// Of one that is not reachable: what is so, and what to do.
    fileprivate var words: (what: String, remedy: String?) {
        switch self {
        case .reachable: ("", nil)
        case .not(let what, let remedy): (what, remedy)
        }
    }
}
