import MATSignal

// The right time (protocol.md section 4): before the first record is signed, and again whenever the IMS disagrees, the node reads the IMS's
// clock off a cookie. At a start that costs nothing, since a first IMS Update without cookie would only bring one.

extension NodeCore {
    /// NTP says that the machine's clock is right. Told now and then.
    public mutating func clockIsSynchronized(now: Now) { clock.noteSynchronized(now) }

    /// Asks the own IMS for a fresh cookie, if no clock is confirmed.
    ///
    /// - Returns: whether signing has to wait for it.
    mutating func readClockIfNeeded(_ hoa: HomeAddress, from source: MobileAddress, _ servers: ServerSet, _ now: Now) -> Bool {
        guard clock.needsReading(now) else { return false }
        let targets = servers.endpoints.filter { $0.address.isIPv4 == source.isIPv4 }
        guard !targets.isEmpty else { return false }
        if !isUnderWay(.readClock(hoa)) { start(.readClock(hoa), .maQuery, to: targets, source: source.address, now) }
        return true
    }

    /// A server's cookie came with a response, and was not only echoed: if it is the own IMS's, it tells the time.
    mutating func readTime(of cookie: ServerCookie, from source: Endpoint, _ now: Now) {
        guard homes.values.contains(where: { $0.servers?.endpoints.contains(source) ?? false }) else { return }
        clock.note(cookie, now)
    }

    /// The IMS's clock was read, or it did not answer.
    mutating func clockRead(_ hoa: HomeAddress, refusal: String?, _ now: Now) {
        guard homes[hoa]?.phase == .proving else { return }
        guard !clock.needsReading(now) else {
            deadlines.cancel(.proofs(hoa))
            registrationFailed(hoa, refusal ?? "the IMS's answer has no cookie of version 1, by which it tells the time", now)
            return
        }
        signWhenProven(hoa, now)
    }
}
