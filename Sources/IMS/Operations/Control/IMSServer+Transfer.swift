import Dispatch
import IMSCore
import MATControl
import MATRuntime
import MATSignal

// Export and import while the server runs, whatever its store is.

extension IMSServer {
    /// Lines in one answer to `export`, and in one request of `import`.
    static let transferLinesMax = 4096
    /// Signatures of imports are checked here, so that nothing else waits for them.
    private static let checkQueue = DispatchQueue(label: "import checks")

    private enum Part: String { case mappings, certificates, leases }

    /// Mappings first, then certificates without a mapping. What changes meanwhile is told as it is when its turn comes. Mappings come in
    /// the table's order, a few more than `count`: in the order of HoAs each page would look at the whole table, and with millions of
    /// mappings hold up all else each time.
    func export(_ request: ExportRequest) throws(ControlError) -> ExportReport<JSONValue> {
        guard !core.isLoading else { throw ControlError("imsd still reads its store; try again in a moment") }
        // An export that lacks something must not look like a whole one.
        guard core.unheldCount == 0 else {
            throw ControlError(
                "\(core.unheldCount) mappings of the store are missing here, for want of memory: give imsd more and start it anew, or stop it and export with --config"
            )
        }
        let count = request.count ?? 1024
        guard count > 0, count <= Self.transferLinesMax else { throw ControlError("\"count\" must be from 1 to \(Self.transferLinesMax)") }
        let after = try Self.prefix(request.after, "after")
        guard let part = Part(rawValue: request.part ?? Part.mappings.rawValue) else {
            throw ControlError("\"part\" must be mappings, certificates or leases")
        }
        var lines: [TransferLine] = []
        var next: ExportPlace?
        switch part {
        case .mappings:
            guard let from = UInt64(exactly: request.from ?? 0) else { throw ControlError("\"from\" must be what the page before gave") }
            if from == 0 {
                let header = TransferHeader(
                    exportedAt: SystemClock.now().wallMilliseconds, program: "imsd \(MATVersion.text)",
                    prefixes: core.servedPrefixes.map(\.prefix.description))
                lines.append(.header(header))
                if request.secrets == true { lines += cookieSecrets.map { .secret($0) } }
            }
            let following = core.walkMappings(from: from, atLeast: count) { lines.append(.mapping($0)) }
            next = ExportPlace(
                part: following == nil ? Part.certificates.rawValue : part.rawValue, from: following.map { Int64(clamping: $0) })
        case .certificates:
            let page = core.certificatesPage(after: after, count: count)
            lines += page.certificates.map { .certificate($0) }
            next = page.last.map { ExportPlace(part: part.rawValue, after: "\($0)") } ?? ExportPlace(part: Part.leases.rawValue)
        case .leases:
            if after == nil, request.secrets == true { lines += core.tokens.map { .token($0) } }
            let leases = core.leasesPage(after: after, count: count)
            lines += leases.map { .lease($0) }
            if leases.count == count, let last = leases.last { next = ExportPlace(part: part.rawValue, after: "\(last.prefix)") }
        }
        return ExportReport(lines: lines.map(\.json), next: next)
    }

    /// Everything is checked as if it came from the network; the answer comes when what was taken is durable. With `check`, nothing is taken.
    func `import`(_ request: ImportRequest<JSONValue>, _ respond: @escaping (ControlResponse) -> Void) throws(ControlError) {
        guard let values = request.lines, values.count <= Self.transferLinesMax else {
            throw ControlError("\"lines\" must be a list of at most \(Self.transferLinesMax)")
        }
        guard !core.isLoading else { throw ControlError("imsd still reads its store; try again in a moment") }
        let isTrial = request.check ?? false
        let check = TransferCheck(served: core.servedPrefixes.map(\.prefix), keys: core.publicKeys)
        let now = SystemClock.now()
        let reference = UncheckedReference(self)
        let poster = loop.poster
        // Runs in the loop's thread again, where it came from.
        nonisolated(unsafe) let respond = respond
        Self.checkQueue.async {
            let checked = Self.check(values, check, now)
            poster.post {
                guard let server = reference.value else { return respond(.failed("imsd is stopping")) }
                if isTrial { return respond(.result(checked.outcome.report)) }
                server.write(checked.lines, checked.outcome, respond)
            }
        }
    }

    private static func check(_ values: [JSONValue], _ check: TransferCheck, _ now: Now) -> (lines: [TransferLine], outcome: TransferOutcome) {
        var good: [TransferLine] = []
        var outcome = TransferOutcome()
        for value in values {
            do throws(TransferError) {
                let line = try TransferLine(json: value)
                if let refusal = check.refusal(of: line, now: now) { outcome.skip(line.name, refusal) } else { good.append(line) }
            } catch {
                outcome.skip("a line", error.description)
            }
        }
        return (good, outcome)
    }

    private func write(_ lines: [TransferLine], _ checked: TransferOutcome, _ respond: @escaping (ControlResponse) -> Void) {
        let now = SystemClock.now()
        var outcome = checked
        var tickets: [StoreTicket] = []
        for line in lines {
            let step: ImportStep
            switch line {
            case .mapping(let mapping): step = core.importing(mapping, now)
            case .certificate(let certificate): step = core.importing(certificate, now)
            case .secret(let secret):
                step = cookieSecrets.contains(secret) ? .same : .older
                if !cookieSecrets.contains(secret), cookieSecrets.count < 2 || cookieSecrets.contains(where: { $0.madeAt < secret.madeAt }) {
                    store.write(secret)
                    outcome.taken += 1
                    continue
                }
            case .lease(let lease): step = core.importing(lease.row, now)
            case .token(let token): step = core.importing(token.row, now)
            case .header, .trailer: continue
            }
            switch step {
            case .written(let ticket): tickets.append(ticket)
            case .same: outcome.same += 1
            case .older: outcome.older += 1
            case .refused(let reason): outcome.skip(line.name, reason)
            }
        }
        perform(core.takeActions(now))
        whenDurable(tickets) { failures in
            for failure in failures { outcome.skip("a record", failure) }
            outcome.taken += tickets.count - failures.count
            respond(.result(outcome.report))
        }
    }
}

extension TransferCheck {
    /// - Returns: why the line is not taken; `nil` if it is fine.
    public func refusal(of line: TransferLine, now: Now) -> String? {
        switch line {
        case .mapping(let mapping): refusal(of: mapping, now: now)
        case .certificate(let certificate): refusal(of: certificate, now: now)
        case .secret(let secret): refusal(of: secret, now: now)
        case .lease(let lease):
            served.contains { $0.contains(lease.prefix) } ? nil : "no prefix served here covers it"
        case .token(let token):
            token.gives.allSatisfy { give in served.contains { $0.contains(give) } } ? nil : "no prefix served here covers what it gives"
        case .header, .trailer: nil
        }
    }
}

extension TransferLine {
    /// What it is about, for people.
    public var name: String {
        switch self {
        case .header: "the header"
        case .trailer: "the trailer"
        case .mapping(let mapping): "the mapping of \(mapping.record.prefix)"
        case .certificate(let certificate): "the certificate of \(certificate.prefix)"
        case .secret: "a cookie secret"
        case .lease(let lease): "the lease of \(lease.prefix)"
        case .token(let token): "token \(token.id)"
        }
    }
}

extension TransferOutcome {
    public var report: ImportReport {
        ImportReport(
            taken: taken, same: same, older: older, skippedCount: skippedCount,
            skipped: skipped.map { ImportReport.Skipped(what: $0.what, reason: $0.reason) })
    }

    public init(_ report: ImportReport) {
        self.init()
        (taken, same, older, skippedCount) = (report.taken, report.same, report.older, report.skippedCount)
        skipped = report.skipped.map { Skipped(what: $0.what, reason: $0.reason) }
    }
}
