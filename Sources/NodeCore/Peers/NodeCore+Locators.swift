import MATSignal

// Peers' locators: what `LocatorChecks` is told of them, and what is done of what it says.

extension NodeCore {
    private var aroundLocators: LocatorChecks.Surroundings { LocatorChecks.Surroundings(addresses: addresses, adoption: adoption) }

    mutating func claimLocators(of hoa: HomeAddress, _ now: Now) { perform(locatorChecks.claim(hoa, in: &peers), now) }

    mutating func releaseLocators(of hoa: HomeAddress, _ now: Now) { perform(locatorChecks.releaseAll(of: hoa, in: &peers), now) }

    mutating func checkLearned(_ hoa: HomeAddress, _ now: Now) {
        perform(locatorChecks.askLearned(hoa, in: &peers, aroundLocators, now: now.monotonic), now)
    }

    mutating func checkListed(_ hoa: HomeAddress, _ now: Now) { perform(locatorChecks.askListed(hoa, peers, addresses), now) }

    /// Somebody has packets for the peer, or from this address.
    mutating func checkRefused(_ hoa: HomeAddress, at moa: MobileAddress? = nil, _ now: Now) {
        perform(
            locatorChecks.askRefused(
                hoa, at: moa, peers, addresses, isBeingAsked: { [exchanges] in exchanges.isUnderWay(.checkLocator(hoa, $0)) }, now: now.monotonic),
            now)
    }

    func isBeingChecked(_ moa: MobileAddress) -> Bool { locatorChecks.isBeingChecked(moa, peers) }

    /// - Parameter code: `nil` if there was no answer.
    mutating func locatorAnswered(_ hoa: HomeAddress, _ moa: MobileAddress, _ code: ResponseCode?, _ now: Now) {
        switch code {
        case .ok?:
            prove(moa, of: hoa, now)
        case .notAuthoritative?:
            let isAsked = isUnderWay(.queryPeer(hoa))
            perform(locatorChecks.denied(moa, of: hoa, isAsked: isAsked, in: &peers, aroundLocators, now: now.monotonic), now)
        case nil:
            guard exchanges.hasHeard(moa.family, within: .seconds(8), now.monotonic) else { return }
            perform(locatorChecks.unanswered(moa, of: hoa, in: &peers, aroundLocators, now: now.monotonic), now)
        default:
            break
        }
    }

    /// The node at this address has shown that it is this HoA, there.
    mutating func prove(_ moa: MobileAddress, of hoa: HomeAddress, _ now: Now) {
        perform(
            locatorChecks.displace(
                from: moa, by: hoa, isAsked: { [exchanges] in exchanges.isUnderWay(.queryPeer($0)) }, in: &peers, aroundLocators,
                now: now.monotonic), now)
        perform(locatorChecks.proved(moa, of: hoa, in: &peers, aroundLocators, now: now.monotonic), now)
    }

    /// A valid MA Notify of this HoA came from this source.
    mutating func notice(_ hoa: HomeAddress, from source: Endpoint, _ now: Now) {
        perform(locatorChecks.noticed(hoa, from: source, in: &peers, aroundLocators, now: now.monotonic), now)
    }

    mutating func locatorDue(_ hoa: HomeAddress, _ moa: MobileAddress, _ now: Now) {
        perform(locatorChecks.due(moa, of: hoa, in: &peers, aroundLocators, now: now.monotonic), now)
    }

    /// Where the node that answers for a peer's locator listens.
    func signallingAddress(of moa: MobileAddress, _ hoa: HomeAddress) -> IPAddress { peers[hoa]?.signallingAddress(of: moa) ?? moa.address }

    private mutating func perform(_ actions: [LocatorChecks.Action], _ now: Now) {
        for action in actions {
            switch action {
            case .ask(let hoa, let moa, let target):
                if !isUnderWay(.checkLocator(hoa, moa)) { start(.checkLocator(hoa, moa), to: [target], now) }
            case .stopAsking(let hoa, let moa): cancel(.checkLocator(hoa, moa))
            case .wake(let hoa, let moa, let time): deadlines.set(.locator(hoa, moa), at: time)
            case .stopWaking(let hoa, let moa): deadlines.cancel(.locator(hoa, moa))
            case .arrange(let hoa): applyPeer(hoa, now)
            case .doubt(let hoa): undoIfRefuted(hoa, now)
            case .askServers(let hoa): query(hoa, now)
            case .waitForAddress(let hoa): paths.waitForAddress(hoa)
            case .settle(let moa): settleClaimed(moa, now)
            case .heard(let hoa): tellIfBehind(hoa, now)
            case .log(let level, let text): log(level, text)
            }
        }
    }
}
