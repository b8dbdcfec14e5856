import MATSignal

// Whether packets that nobody here asked for arrive at our addresses: the own IMS sends locator checks of each new record from where nothing was
// sent to, and whether they come is all that is to be known (protocol.md section 11.1).

extension NodeCore {
    /// Our IMS took a record: what it lists as it is will be checked.
    mutating func awaitChecks(of hoa: HomeAddress, _ now: Now) {
        guard let home = homes[hoa], !home.isNetwork, let record = home.mapping?.record else { return }
        for locator in record.locators { ownEndpoints.awaitCheck(of: locator.moa, now.monotonic) }
        scheduleChecks()
    }

    private mutating func scheduleChecks() {
        if let due = ownEndpoints.due { deadlines.set(.reachability, at: due) } else { deadlines.cancel(.reachability) }
    }

    mutating func checksDue(_ now: Now) {
        for (moa, what) in ownEndpoints.checksDue(now.monotonic) {
            switch what {
            case .nothing: break
            case .late: checkLate(at: moa, now)
            // Of its family: another's record lists it as an endpoint, which nobody checks so.
            case .registerAgain: if let hoa = homesReached(by: moa).first(where: { $0.family == moa.family }) { register(hoa, now) }
            case .filtered:
                endpointChanged(moa, now)
                checkEnded(at: moa, hasCome: false, now)
            }
        }
        scheduleChecks()
    }

    /// A MA Query for an own HoA came.
    mutating func locatorCheckCame(of hoa: HomeAddress, from source: Endpoint, to local: IPAddress, _ now: Now) {
        let moa = MobileAddress(local)
        guard ownEndpoints.isCheckAwaited(at: moa) || !ownEndpoints.isOpen(moa), isUnaskedServer(source, at: moa) else { return }
        if ownEndpoints.checked(moa) { endpointChanged(moa, now) }
        checkEnded(at: moa, hasCome: true, now)
        scheduleChecks()
    }

    /// Whether it is an own server's place that nothing was sent to, so that nothing before us expects it.
    ///
    /// The server may check from an address that no name says is its own (imsd.yaml, `reachability-test`). Peers' nodes check from port 6289, and
    /// may stand behind the same firewall as we do; so may whoever is on our link.
    private func isUnaskedServer(_ source: Endpoint, at moa: MobileAddress) -> Bool {
        let known = homes.values.flatMap { $0.servers?.endpoints ?? [] }
        if known.contains(where: { $0.address == source.address }) { return !known.contains(source) }
        return ownEndpoints.isCheckAwaited(at: moa) && source.port != SignalPort.node && isStranger(source.address)
            && !addresses.isNeighbour(source.address)
    }
}
