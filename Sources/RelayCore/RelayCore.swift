import MATCore
import MATSignal

/// What a relay decides (protocol.md sections 11.3 and 11.5): who is bound where, and which packet goes where. Events in, actions out; no clock, no
/// socket, no randomness.
///
/// ```
///   signalling ──► received ──► SizeRule ──► ask: answered at once
///                                       └──► Bind: SourceRates, IssuerKeys (the DNS), SignatureChecks (other threads) ──► BindingTable ──► Bind Ack
///   packet ──────► forward  ──► BindingTable: whose is it, for whom ──► Traffic: may it ──► forward, or drop and count why
///                                                                              └──► FairQueues ──► release: forward, when its turn has come
/// ```
/// Packets are many: `forward` allocates nothing and looks up twice.
public struct RelayCore: Sendable {
    package private(set) var configuration: RelayCoreConfiguration
    /// The addresses of the machine, none of which may be bound.
    public var ownAddresses: Set<IPAddress> = []
    public internal(set) var counters = RelayCounters()

    var cookies: CookieAuthority
    var bindings: BindingTable
    var changes = RecentList<RelayChange>(entriesMax: RelayChange.latestMax)
    var traffic: Traffic
    var queues: FairQueues
    var issuerKeys: IssuerKeys
    var checks: SignatureChecks
    var bindRates: SourceRates
    var checkRates: SourceRates
    var rejections: Rejections
    /// Certificates that were found good, and until when that is believed: the time for which the DNS gave the key.
    var believed: BoundedTable<CertificateID, BelievedCertificate>
    /// Whether new bindings and refreshes are put off, so that nodes go elsewhere.
    var isDraining = false
    /// `nil` where the kernel does not forward.
    var kernel: KernelShare?
    private var refusalLog: LimitedLog
    private var bindingLog: LimitedLog
    private var actions: [RelayAction] = []

    struct BelievedCertificate: Sendable {
        var certificate: Certificate
        var until: MonotonicTime
    }

    /// - Parameter secret: 16 random octets that cookies are made with.
    /// - Returns: `nil` if the secret is of another length.
    public init?(_ configuration: RelayCoreConfiguration, cookieSecret secret: [UInt8], previousSecret: [UInt8]? = nil) {
        guard let cookies = CookieAuthority(secret: secret, previous: previousSecret) else { return nil }
        let limits = configuration.limits
        self.configuration = configuration
        self.cookies = cookies
        bindings = BindingTable(limits.bindings)
        traffic = Traffic(limits)
        queues = FairQueues(limits)
        issuerKeys = IssuerKeys(limits)
        checks = SignatureChecks(limits)
        bindRates = SourceRates(
            perSecond: limits.bindsPerSecond, sharedPerSecond: limits.bindsPerSharedSourcePerSecond, keysMax: limits.ratesMax)
        checkRates = SourceRates(
            perSecond: limits.verificationsPerSecond, sharedPerSecond: 10 * limits.verificationsPerSecond, keysMax: limits.ratesMax)
        rejections = Rejections(perSecond: limits.errorAnswersPerSecond)
        believed = BoundedTable(max: limits.bindingsMax)
        refusalLog = LimitedLog(perSecond: limits.refusalLogsPerSecond)
        bindingLog = LimitedLog(perSecond: limits.bindingLogsPerSecond)
    }

    /// Another configuration from now on. What is bound stays bound until its grant ends, but who is a resident no more is a visitor at once.
    public mutating func reconfigure(_ fresh: RelayCoreConfiguration, now: Now) -> [RelayAction] {
        let limits = fresh.limits
        let keysChanged = fresh.residents != configuration.residents
        configuration = fresh
        bindings.reconfigure(limits.bindings)
        traffic.reconfigure(limits)
        queues.reconfigure(limits)
        issuerKeys.reconfigure(limits)
        checks.reconfigure(limits)
        bindRates.reconfigure(
            perSecond: limits.bindsPerSecond, sharedPerSecond: limits.bindsPerSharedSourcePerSecond, keysMax: limits.ratesMax)
        checkRates.reconfigure(
            perSecond: limits.verificationsPerSecond, sharedPerSecond: 10 * limits.verificationsPerSecond, keysMax: limits.ratesMax)
        rejections.reconfigure(perSecond: limits.errorAnswersPerSecond)
        refusalLog.reconfigure(perSecond: limits.refusalLogsPerSecond)
        bindingLog.reconfigure(perSecond: limits.bindingLogsPerSecond)
        if keysChanged {
            issuerKeys.forgetKnown()
            believed = BoundedTable(max: limits.bindingsMax)
        }
        for slot in 0..<bindings.slotsCount {
            guard let binding = bindings.binding(in: slot, now.monotonic) else { continue }
            let resident = fresh.resident(binding.prefix)
            traffic.bound(binding.prefix, in: slot, isNew: false, resident: resident)
            enterKernel(slot, now.monotonic)
            if resident == nil, !fresh.takesVisitors, bindings.end(binding.prefix, now.monotonic) != nil {
                ended(binding, in: slot, now)
                logBinding("\(binding.hoa) is not served any more", now.monotonic)
            }
        }
        if kernel != nil { traffic.shortenBursts() }
        barAnew()
        return takeActions()
    }

    /// Makes cookies with this secret from now on; those of the one before stay valid.
    public mutating func rotate(to secret: [UInt8]) { cookies.rotate(to: secret) }

    /// From now on nobody is bound, and no binding is refreshed: code 7, so that nodes go to another relay. Packets are forwarded on.
    public mutating func drain() { isDraining = true }

    // MARK: Time

    /// Once a second.
    public mutating func tick(now: Now) -> [RelayAction] {
        if let time = UTCTime(unixSeconds: Int64(clamping: now.wallMilliseconds / 1000)), traffic.monthIs(String(time.day.prefix(7))) { barAnew() }
        for (binding, slot) in bindings.sweep(steps: Self.sweepSteps(bindings.slotsCount), now.monotonic) {
            ended(binding, in: slot, now)
            logBinding("binding of \(binding.hoa) at \(binding.endpoint) has run out", now.monotonic)
        }
        bindRates.sweep(now.monotonic, steps: Self.sweepSteps(configuration.limits.ratesMax))
        checkRates.sweep(now.monotonic, steps: Self.sweepSteps(configuration.limits.ratesMax))
        return takeActions()
    }

    /// A binding stands in this slot no more.
    mutating func ended(_ binding: Binding, in slot: Int, _ now: Now) {
        counters.ends += 1
        changes.add(RelayChange(atMilliseconds: now.wallMilliseconds, prefix: binding.prefix, before: binding.endpoint, after: nil))
        traffic.ended(binding.prefix, in: slot)
        leaveKernel(slot, binding.prefix)
    }

    /// Entries of a table looked at in a second: a part of a large table, so that nobody waits for it.
    private static func sweepSteps(_ count: Int) -> Int { max(1024, count / 16) }

    // MARK: What it has

    /// Bound ones, with those whose grant has ended within the last seconds.
    public var bindingsCount: Int { bindings.count }
    public var visitorsCount: Int { bindings.visitorsCount }
    public var checksPendingCount: Int { checks.count }

    /// The latest first. Refreshes are not among them.
    public var latestChanges: [RelayChange] { changes.latest }

    /// Up to `count` of what is bound now.
    package func bound(count: Int, now: Now) -> [Binding] {
        var found: [Binding] = []
        for slot in 0..<bindings.slotsCount where found.count < count {
            if let binding = bindings.binding(in: slot, now.monotonic) { found.append(binding) }
        }
        return found
    }

    /// A part of what is bound now: who wants all asks again from `next` on, which is `nil` at the end. What is bound or ends meanwhile may be missed.
    package func bound(from slot: Int, slots count: Int, now: Now) -> (bindings: [Binding], next: Int?) {
        let end = min(slot + count, bindings.slotsCount)
        guard slot < end else { return ([], nil) }
        return ((slot..<end).compactMap { bindings.binding(in: $0, now.monotonic) }, end < bindings.slotsCount ? end : nil)
    }

    // MARK: A restart

    /// What the next run is to know.
    public func saved(now: Now) -> SavedRelay {
        let saved = bindings.saved(now)
        let slots = (0..<bindings.slotsCount).compactMap { slot in bindings.binding(in: slot, now.monotonic).map { ($0.prefix, slot) } }
        var octets = traffic.octetsAway
        for (prefix, slot) in slots where traffic.octetsOfMonth(in: slot) > 0 { octets.append((prefix, traffic.octetsOfMonth(in: slot))) }
        let used = octets.sorted { $0.prefix < $1.prefix }.map { SavedRelay.Usage(prefix: $0.prefix, octets: $0.octets) }
        return SavedRelay(month: traffic.month, octetsOfMonth: used, bindings: saved)
    }

    /// Takes back what an earlier run had, before anything else happens.
    ///
    /// - Returns: how many bindings are held again.
    public mutating func restore(_ saved: SavedRelay, now: Now) -> Int {
        if let time = UTCTime(unixSeconds: Int64(clamping: now.wallMilliseconds / 1000)) { _ = traffic.monthIs(String(time.day.prefix(7))) }
        if saved.month == traffic.month { for usage in saved.octetsOfMonth { traffic.restore(usage.octets, of: usage.prefix) } }
        var count = 0
        for binding in saved.bindings {
            let resident = configuration.resident(binding.prefix)
            guard resident != nil || configuration.takesVisitors else { continue }
            let holder: Binding.Holder = resident == nil ? .visitor(issuer: binding.issuer ?? 0) : .resident
            guard let slot = bindings.restore(binding, holder: holder, now) else { continue }
            traffic.bound(binding.prefix, in: slot, isNew: true, resident: resident)
            count += 1
        }
        return count
    }

    // MARK: Actions

    mutating func append(_ action: RelayAction) { actions.append(action) }

    mutating func takeActions() -> [RelayAction] {
        let taken = actions
        actions = []
        return taken
    }

    mutating func logRefusal(_ line: @autoclosure () -> String, _ now: MonotonicTime) {
        log(refusalLog.line(now), .info, line())
    }

    mutating func logBinding(_ line: @autoclosure () -> String, _ now: MonotonicTime) {
        log(bindingLog.line(now), .debug, line())
    }

    private mutating func log(_ outcome: LimitedLog.OnLine, _ level: RelayLogLevel, _ line: @autoclosure () -> String) {
        switch outcome {
        case .write(let suppressed):
            if suppressed > 0 { append(.log(level, "\(suppressed) lines like the following were left out")) }
            append(.log(level, line()))
        case .suppress: counters.logLinesSuppressed += 1
        }
    }
}

/// What a relay writes down for its next run.
public struct SavedRelay: Hashable, Sendable {
    package struct Usage: Hashable, Sendable {
        package var prefix: IPPrefix
        package var octets: UInt64

        package init(prefix: IPPrefix, octets: UInt64) {
            self.prefix = prefix
            self.octets = octets
        }
    }

    /// The calendar month that the octets are of, as `2026-11`.
    package var month: String
    package var octetsOfMonth: [Usage]
    package var bindings: [SavedBinding]

    /// Octets that were forwarded since, in the same month.
    public mutating func add(_ octets: [(prefix: IPPrefix, octets: UInt64)]) {
        guard !octets.isEmpty else { return }
        var places: [IPPrefix: Int] = [:]
        for (place, usage) in octetsOfMonth.enumerated() { places[usage.prefix] = place }
        for (prefix, more) in octets {
            if let place = places[prefix] {
                octetsOfMonth[place].octets &+= more
            } else {
                octetsOfMonth.append(Usage(prefix: prefix, octets: more))
            }
        }
    }

    package init(month: String, octetsOfMonth: [Usage], bindings: [SavedBinding]) {
        self.month = month
        self.octetsOfMonth = octetsOfMonth
        self.bindings = bindings
    }
}
