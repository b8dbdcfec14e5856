import MATSignal

/// What is known of the right time apart from this machine's own clock, which may be wrong (protocol.md section 4).
///
/// ```
///              a cookie of the own IMS (it carries the IMS's time), or NTP says that the kernel's clock is right
///  unconfirmed ──────────────────────────────────────────────────────────────────────────────────────────────► confirmed
///                                          ▲                                                                       │
///                                          └── doubted: the IMS refused a record (code 1), or the clocks differ ◄──┘
/// ```
/// A sequence once signed and stored can never be taken back: nobody accepts a lower one from the same key. So nothing is signed or stored
/// that lies more than 300 s ahead of a clock that was confirmed since the start. A confirmation is kept as a pair of times and goes on with
/// the monotonic clock, so that it survives whatever happens to the wall clock.
struct ConfirmedClock: Sendable {
    private struct Reading: Sendable {
        let wall: UInt64
        let monotonic: MonotonicTime

        /// What that clock shows now, Unix time in ms.
        func time(_ now: Now) -> UInt64 {
            let (sum, overflow) = wall.addingReportingOverflow(UInt64(max(0, (now.monotonic - monotonic).millisecondsSaturated)))
            return overflow ? .max : sum
        }
    }

    /// What it says at a moment.
    struct Outlook: Hashable, Sendable {
        /// The highest sequence, Unix time in ms, that may be signed or stored; `nil` while no clock is confirmed.
        let sequenceMax: UInt64?
        /// Whether the IMS's clock has to be read before a record can be signed.
        let needsReading: Bool
        /// How far the machine's clock is ahead of its IMS's (negative: behind); `nil` until that was read.
        let lead: Duration?

        /// Why no record can be signed now that the IMS would take, in words; `nil` if there is no reason.
        ///
        /// - Parameter lifetime: of the record, in seconds. One that is dated further back is expired when it arrives.
        func problem(lifetime: UInt32) -> String? {
            guard let lead else { return nil }
            if lead > CertifiedMapping.clockTolerance { return "this host's clock is \(ConfirmedClock.text(lead)) ahead of its IMS's" }
            if lead < .zero - .seconds(Int64(lifetime)) { return "this host's clock is \(ConfirmedClock.text(.zero - lead)) behind its IMS's" }
            return nil
        }
    }

    private var server: Reading?
    private var kernel: Reading?
    /// The IMS disagreed: its clock is to be read again before the next record is signed.
    private var isDoubted = false
    /// Told before there was a time to keep with it.
    private var isRightAtStart: Bool

    /// - Parameter isRightAtStart: NTP had confirmed the machine's clock when the agent started.
    init(isRightAtStart: Bool) { self.isRightAtStart = isRightAtStart }

    /// NTP says that the machine's clock is right now.
    mutating func synchronized(_ now: Now) {
        isRightAtStart = false
        kernel = Reading(wall: now.wallMilliseconds, monotonic: now.monotonic)
    }

    /// The own IMS made this cookie just now.
    mutating func read(_ cookie: ServerCookie, _ now: Now) {
        guard let made = cookie.madeAt else { return }
        server = Reading(wall: made, monotonic: now.monotonic)
        isDoubted = false
    }

    mutating func doubt() { isDoubted = true }

    /// What it says now.
    mutating func outlook(_ now: Now) -> Outlook {
        if isRightAtStart { synchronized(now) }
        let latest = [server, kernel].compactMap { $0?.time(now) }.max()
        let most = latest.map { time in
            let (sum, overflow) = time.addingReportingOverflow(CertifiedMapping.clockToleranceMilliseconds)
            return overflow ? .max : sum
        }
        return Outlook(
            sequenceMax: most,
            // NTP's word counts for the clock of that time, and not for one that was set ahead since.
            needsReading: isDoubted || server == nil && most.map { now.wallMilliseconds > $0 } ?? true,
            lead: server.map { .milliseconds(Int64(clamping: now.wallMilliseconds) - Int64(clamping: $0.time(now))) })
    }

    fileprivate static func text(_ duration: Duration) -> String {
        let seconds = duration.components.seconds
        if seconds >= 2 * 86_400 { return "\(seconds / 86_400) days" }
        if seconds >= 2 * 3600 { return "\(seconds / 3600) hours" }
        return "\(seconds / 60) minutes"
    }
}
