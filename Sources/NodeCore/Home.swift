import MATSignal

/// One of our own HoAs and its registration.
///
/// ```
///            locators, servers known          all proven or waited long enough        ok
///   waiting -------------------------> proving -----------------------------> updating --> registered
///      ^                                  ^                                      |             |
///      |  no locator or no server         |   half the lifetime, a new locator   |  refused:   |
///      +----------------------------------+--------------------------------------+-- pausing --+
/// ```
struct Home: Sendable {
    enum Phase: Hashable, Sendable {
        /// No usable locator, or the own IMS is not known yet.
        case waiting
        /// Cookies are being fetched from the locators that the record is to list.
        case proving
        case updating
        case registered
        /// The last attempt failed; the next comes by timer.
        case pausing
    }

    let key: SigningKey
    var certificate: Certificate
    var lastSequence: UInt64
    var phase = Phase.waiting
    var servers: ServerSet?
    /// The newest record that was signed.
    var mapping: CertifiedMapping?
    var registeredAt: MonotonicTime?
    /// The version that the IMS acked.
    var registered: RecordVersion?
    var observed: Endpoint?
    /// The locators of the record that the IMS acked.
    var registeredPlaces: Set<MobileAddress> = []
    /// The IMS answered no registration from there, and nothing has shown yet that it lives.
    var silentOver: MobileAddress?
    /// Locators that could not be proven in time, and are left out of this record.
    var unproven: Set<MobileAddress> = []
    /// Whether our IMS is known to hold our certificate, so that its id is enough.
    var serverHasCertificate = false
    /// When people were last told that the certificate is about to end.
    var expiryWarnedAt: MonotonicTime?
    /// When the own IMS was last asked whether it still has our record.
    var selfCheckedAt: MonotonicTime?
    var failures = 0
    var problem: String?
    /// What the DNS does not say, or denies, about this HoA; `nil` if its IMSs are known.
    var namesProblem: String?
    var lookUpFailures = 0
    /// The DNS said that there is none.
    var isDenied = false
    /// Whether peers must be told when the registration is through.
    var owesPeers = false
    /// Counts what peers must be told of: those who acked the newest have this number (`Peer.knownMove`).
    var move: UInt32 = 1

    var hoa: HomeAddress { certificate.hoa }
    /// What it speaks for: its address, or a mobile network's home prefix.
    var prefix: IPPrefix { certificate.prefix }
    var isNetwork: Bool { certificate.prefixLength < 128 }

    init(_ identity: HomeIdentity) {
        key = identity.key
        certificate = identity.certificate
        lastSequence = identity.lastSequence
    }

    /// 1, 2, 4, 8, 10 s between look-ups that found no IMS: a question costs little, and whoever walks through a captive portal waits for it.
    var lookUpPause: Duration { .seconds(min(10, 1 << min(lookUpFailures, 4))) }
    /// 1, 2, 4 ... 30 s between failed attempts.
    var pause: Duration { .seconds(min(30, 1 << min(failures, 5))) }
}
