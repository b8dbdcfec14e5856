import MATSignal

// What a core of a visited home is told by `Visits`.

extension NodeCore {
    /// The lease was prolonged; the IMS takes no record under the certificate of before.
    mutating func prolong(_ certificate: Certificate, now: Now) -> [NodeAction] {
        homes[certificate.hoa]?.registration.prolong(certificate)
        register(certificate.hoa, now)
        return endEvent()
    }

    /// Lets go of all peers: the homes go.
    ///
    /// - Returns: what the kernel is to forget.
    mutating func leave(now: Now) -> [NodeAction] {
        for hoa in peers.slots.compactMap({ peers[$0]?.hoa }).sorted() { removePeer(hoa, now) }
        return endEvent().filter {
            switch $0 {
            case .changeIMT, .log: true
            default: false
            }
        }
    }

    /// Whether a record that somebody tells of is this core's business.
    func concerns(_ record: MappingRecord) -> Bool {
        let hoa = record.hoa
        if peers[hoa] != nil || destinations.contains(hoa) || callers.contains(hoa) { return true }
        return record.isNetwork && peers.slots.contains { peers[$0].map { record.prefix.contains($0.hoa.address) } ?? false }
    }

    /// The highest sequence signed for an own HoA.
    func sequence(of hoa: HomeAddress) -> UInt64 { homes[hoa]?.registration.signer.sequence ?? 0 }

    /// As which the node is at home there now, under the newest certificate.
    func identity(of family: AddressFamily) -> HomeIdentity? {
        guard let hoa = home(in: family), let home = homes[hoa], !home.isNetwork else { return nil }
        return HomeIdentity(hoa: hoa, key: home.registration.signer.key, certificate: home.registration.certificate.current)
    }

    /// Whether the address is somebody's whom this node knows.
    func knows(_ address: IPAddress) -> Bool {
        isOwn(address) || addresses.isOthers(address) || addresses.infrastructure.contains(address) || peers[HomeAddress(address)] != nil
            || peers.holder(of: MobileAddress(address)) != nil || servers.hasAnswered(address)
    }

    /// Where others see an own address, if something that translates stands before it.
    func seen(_ own: IPAddress) -> IPAddress? {
        ownEndpoints[MobileAddress(own)].endpoint.flatMap { $0.address == own ? nil : $0.address }
    }
}
