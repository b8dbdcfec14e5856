import MATCore
import MATSignal

// Own addresses that work, but not as locators: the IMS does not take them, since it sees another address (a translator stands in
// between) or by its policy, or it answers no registration from them. Whether to use the next best is decided here; it is the same
// as for an address over which nothing answers at all, only that this one shows itself in the registration alone.

extension NodeCore {
    /// The IMS refused a record (code 6).
    ///
    /// - Returns: whether an own address was found at fault, and another record is on its way.
    mutating func registrationRefused(_ hoa: HomeAddress, _ places: [MobileAddress], _ reply: IMSUpdateReply, _ now: Now) -> Bool {
        guard let registration = homes[hoa]?.registration,
            let (culprits, reason) = Uplinks.culprits(
                among: places, isNetwork: registration.isNetwork, reply, accepted: registration.acked?.places ?? [],
                hasFailedBefore: registration.failures > 0)
        else { return false }
        for (index, moa) in culprits.enumerated() { refuse(moa, reason, turn: index, now) }
        // Where all have been refused, the usual pause comes first.
        guard desiredLocators(of: hoa).contains(where: { isWorthTrying($0) }) else { return false }
        registrationDue(hoa, now)
        return true
    }

    private func isWorthTrying(_ own: MobileAddress) -> Bool { !uplinks.isRefused(own) && !uplinks.isDead(own) }

    /// Registers from what is the best address now: among several that were refused, it is another each time.
    mutating func registrationDue(_ hoa: HomeAddress, _ now: Now) {
        let before = desiredLocators(of: hoa)
        arrangeAgain(now)
        if desiredLocators(of: hoa) == before { register(hoa, now) }
    }

    /// The IMS answered no try of a registration.
    ///
    /// - Returns: whether the address was found at fault, and another is used.
    mutating func registrationUnanswered(_ hoa: HomeAddress, from own: MobileAddress?, _ now: Now) -> Bool {
        guard let own, desiredLocators(of: hoa).first == own, !uplinks.isRefused(own) else { return false }
        if let other = uplinks.standIn(among: others(than: own), monitor, now: now.monotonic) {
            return leaveUnanswered(own, for: other, of: hoa, now)
        }
        // A server that is down says nothing about the way there: whether it answers elsewhere is asked, and told to `blameSilence`.
        suspect(own, now)
        runPaths(now)
        return false
    }

    /// An IMS answered over this address: it lives, so what it did not answer over another is that one's fault.
    mutating func blameSilence(at other: MobileAddress, _ now: Now) {
        guard let hoa = home(of: other), let own = homes[hoa]?.registration.silentOver, own != other, desiredLocators(of: hoa).first == own,
            !uplinks.isRefused(other)
        else { return }
        _ = leaveUnanswered(own, for: other, of: hoa, now)
    }

    private mutating func leaveUnanswered(_ own: MobileAddress, for other: MobileAddress, of hoa: HomeAddress, _ now: Now) -> Bool {
        homes[hoa]?.registration.silenceIsExplained()
        refuse(own, "the IMS answers no registration from it, but does over \(addresses.named(other))", turn: 0, now)
        arrangeAgain(now)
        return desiredLocators(of: hoa).first != own
    }

    /// - Parameter turn: several that may be at fault are tried again one after another, so that a good one does not share a bad one's fate.
    private mutating func refuse(_ own: MobileAddress, _ reason: String, turn: Int, _ now: Now) {
        let (wasRefused, pause) = uplinks.refuse(own, reason, turn: turn, now: now.monotonic)
        if !wasRefused { counters.uplinkFailures += 1 }
        log(
            wasRefused ? .info : .warning,
            "\(addresses.named(own)) can't be registered: \(reason); it is used last and tried again in \(pause.components.seconds) s")
    }

    // MARK: Whether it is better now

    /// The hold-down of a refused address is over. While another is registered nothing is risked: the registered record is sent once more, from
    /// the refused address, and changes nothing (section 7); its answer says which source the IMS saw.
    ///
    /// - Returns: whether it is being tried; if not, it is to be taken for sound, for the registration to show.
    mutating func tryRefused(_ own: MobileAddress, _ now: Now) -> Bool {
        guard !others(than: own).isEmpty else {
            uplinks.postponeTrial(of: own, now: now.monotonic)
            return true
        }
        guard let hoa = home(of: own), let home = homes[hoa], home.registration.isRegistered, let servers = home.servers,
            desiredLocators(of: hoa).first != own
        else { return false }
        let targets = servers.endpoints.filter { $0.family == own.family }
        guard !targets.isEmpty else { return false }
        // Whatever becomes of it, not at once again.
        uplinks.postponeTrial(of: own, now: now.monotonic)
        start(.tryUplink(hoa, own), to: targets, source: own.address, triesMax: Retransmission.failoverTry, now)
        return true
    }

    /// - Parameter observed: where the IMS saw the datagram come from; `nil` if it did not answer.
    mutating func uplinkTried(_ own: MobileAddress, of hoa: HomeAddress, observed: Endpoint?, _ now: Now) {
        guard let observed, observed == Endpoint(own.address, port: SignalPort.node), uplinks.accept(own) else { return }
        log(.notice, "the IMS sees \(addresses.named(own)) as it is now; it has its place in the order of preference again")
        let before = desiredLocators(of: hoa)
        arrangeAgain(now)
        // A standby address gets its place in the record back, too.
        if desiredLocators(of: hoa) == before { register(hoa, now) }
    }
}
