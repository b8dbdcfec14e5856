import MATSignal

/// One of our own HoAs: its mapping at its IMS, and what peers are to be told of it.
struct Home: Sendable {
    var registration: Registration
    var announcement = Announcement()

    init(_ identity: HomeIdentity, _ configuration: NodeCoreConfiguration) { registration = Registration(identity, configuration) }

    var hoa: HomeAddress { registration.hoa }
    /// What it speaks for: its address, or a mobile network's home prefix.
    var prefix: IPPrefix { registration.prefix }
    var isNetwork: Bool { registration.isNetwork }
    /// Its IMSs; perhaps expired.
    var servers: ServerSet? { registration.servers.set }
    /// The newest record that was signed.
    var mapping: CertifiedMapping? { registration.mapping }
    var isRegistered: Bool { registration.isRegistered }
    /// Whether its IMS has ever acked a record in this run.
    var isKnown: Bool { registration.acked != nil }
}

/// What peers are to be told of our moves. Those who acked the newest have its number (`Telling`).
struct Announcement: Hashable, Sendable {
    /// Peers are to be told when the registration is through.
    private(set) var isOwed = false
    private(set) var number: UInt32 = 1
    /// The number that what is sent now tells of: between a move and its record that is the move before.
    private(set) var toldNumber: UInt32 = 1

    /// We moved.
    mutating func moved() {
        isOwed = true
        number &+= 1
    }

    /// There is to be a newer record, of the same places.
    mutating func owe() { isOwed = true }

    /// Peers are being told. What they have acked so far was another record.
    ///
    /// - Parameter again: another record follows.
    mutating func told(again: Bool = false) {
        isOwed = again
        number &+= 1
        toldNumber = number
    }
}
