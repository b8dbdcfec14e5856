import MATSignal

/// A binding (protocol.md section 11.3): the endpoint at which the holder of a HoA receives, as a server has it.
package struct Binding: Hashable, Sendable {
    /// On whose account a server holds it. The bounds differ.
    package enum Holder: Hashable, Sendable {
        case resident
        /// A node that the server does not belong to, with the id of the IMS key that certified it.
        case visitor(issuer: UInt64)
    }

    /// Where packets were accepted from before the node moved, and until when they are still.
    package struct Previous: Hashable, Sendable {
        package var endpoint: Endpoint
        package var acceptedUntil: MonotonicTime
    }

    /// The HoA with its prefix length: 128 for one node, shorter for a mobile network.
    package let prefix: IPPrefix
    package internal(set) var holder: Holder
    /// Where the node receives: what is sent to it goes there.
    package internal(set) var endpoint: Endpoint
    /// The server's own address and port that the node bound to: what is sent to it leaves from there, because a translator on the
    /// way lets nothing else in.
    package internal(set) var local: Endpoint
    /// Granted until then.
    package internal(set) var until: MonotonicTime
    /// For how long each Bind or refresh grants it.
    package internal(set) var lifetime: Duration
    /// When the last signature was accepted; a repeated Bind's counts from when it was seen first.
    package internal(set) var signedAt: MonotonicTime
    /// When the certificate of the last Bind ends.
    package internal(set) var certifiedUntil: MonotonicTime
    /// When the server half of that Bind's cookie was made, Unix time in s as in the cookie. A Bind with an older one is a repetition.
    package internal(set) var cookieTime: UInt32
    /// The client half, which a refresh has to show.
    package internal(set) var clientCookie: UInt64
    package internal(set) var previous: Previous?

    package var hoa: HomeAddress { HomeAddress(prefix.address) }

    /// Whether packets of the node are accepted from this endpoint.
    package func accepts(from source: Endpoint, _ now: MonotonicTime) -> Bool {
        if source == endpoint { return true }
        guard let previous else { return false }
        return previous.endpoint == source && now < previous.acceptedUntil
    }

    /// Up to when refreshes can extend the grant.
    package var refreshedUntilMax: MonotonicTime { min(signedAt + BindingTimes.signatureAgeMax, certifiedUntil) }

    /// The whole seconds that are left of the grant: what LIFETIME says.
    package func secondsLeft(_ now: MonotonicTime) -> UInt32 { UInt32(clamping: max(.zero, until - now).components.seconds) }
}

/// A binding as a server writes it down: its times are of the clock on the wall, since the other one begins anew with the machine.
package struct SavedBinding: Hashable, Sendable {
    package var prefix: IPPrefix
    /// Of a visitor: the id of the IMS key that certified it.
    package var issuer: UInt64?
    package var endpoint: Endpoint
    package var local: Endpoint
    /// Unix times in ms.
    package var until: UInt64
    package var signedAt: UInt64
    package var certificateNotAfter: UInt64
    package var lifetimeSeconds: UInt32
    package var cookieTime: UInt32
    package var clientCookie: UInt64

    package init(
        prefix: IPPrefix, issuer: UInt64? = nil, endpoint: Endpoint, local: Endpoint, until: UInt64, signedAt: UInt64,
        certificateNotAfter: UInt64, lifetimeSeconds: UInt32, cookieTime: UInt32, clientCookie: UInt64
    ) {
        self.prefix = prefix
        self.issuer = issuer
        self.endpoint = endpoint
        self.local = local
        self.until = until
        self.signedAt = signedAt
        self.certificateNotAfter = certificateNotAfter
        self.lifetimeSeconds = lifetimeSeconds
        self.cookieTime = cookieTime
        self.clientCookie = clientCookie
    }

    init(_ binding: Binding, _ now: Now) {
        func wall(_ time: MonotonicTime) -> UInt64 {
            let ahead = (time - now.monotonic).millisecondsSaturated
            guard ahead > 0 else { return now.wallMilliseconds - min(now.wallMilliseconds, ahead.magnitude) }
            let (sum, overflow) = now.wallMilliseconds.addingReportingOverflow(ahead.magnitude)
            return overflow ? .max : sum
        }
        var issuer: UInt64?
        if case .visitor(let id) = binding.holder { issuer = id }
        self.init(
            prefix: binding.prefix, issuer: issuer, endpoint: binding.endpoint, local: binding.local, until: wall(binding.until),
            signedAt: wall(binding.signedAt), certificateNotAfter: wall(binding.certifiedUntil),
            lifetimeSeconds: UInt32(clamping: binding.lifetime.components.seconds),
            cookieTime: binding.cookieTime, clientCookie: binding.clientCookie)
    }

    /// As it is now. Whatever the clock has done since, nothing lasts longer than it was granted for.
    func binding(_ holder: Binding.Holder, _ now: Now) -> Binding {
        let lifetime = min(.seconds(Int64(lifetimeSeconds)), BindingTimes.lifetimeMax)
        let left = until > now.wallMilliseconds ? Duration.milliseconds(Int64(clamping: until - now.wallMilliseconds)) : .zero
        let signatureAge = now.wallMilliseconds > signedAt ? Duration.milliseconds(Int64(clamping: now.wallMilliseconds - signedAt)) : .zero
        let certified = certificateNotAfter > now.wallMilliseconds ? Int64(clamping: certificateNotAfter - now.wallMilliseconds) : 0
        return Binding(
            prefix: prefix, holder: holder, endpoint: endpoint, local: local, until: now.monotonic + min(left, lifetime), lifetime: lifetime,
            signedAt: now.monotonic + (.zero - signatureAge), certifiedUntil: now.monotonic + .milliseconds(certified), cookieTime: cookieTime,
            clientCookie: clientCookie)
    }
}

/// How many bindings a server holds.
package struct BindingLimits: Hashable, Sendable {
    package var bindingsMax: Int
    /// Of them, those of visitors.
    package var visitorsMax: Int
    /// Visitors that one IMS key certified.
    package var visitorsPerIssuerMax: Int

    /// - Parameter visitorsMax: half of all unless given (section 11.5).
    package init(bindingsMax: Int, visitorsMax: Int? = nil, visitorsPerIssuerMax: Int = 64) {
        self.bindingsMax = max(1, bindingsMax)
        self.visitorsMax = max(0, visitorsMax ?? bindingsMax / 2)
        self.visitorsPerIssuerMax = max(0, visitorsPerIssuerMax)
    }
}

/// The times of section 11.3.
package enum BindingTimes {
    /// What a Bind without LIFETIME is granted.
    package static let lifetimeDefault = Duration.seconds(120)
    package static let lifetimeMin = Duration.seconds(30)
    package static let lifetimeMax = Duration.seconds(600)
    /// How long a signature speaks for refreshes: who stands in for a node that fell silent can do so for no longer.
    package static let signatureAgeMax = Duration.seconds(600)
    /// How long packets are accepted from the endpoint of before.
    package static let previousMax = Duration.seconds(30)
    /// How long the cookie's time is remembered when a binding has ended: as long as an older cookie could still be shown.
    package static let rememberedMax = CookieAuthority.proofAgeMax + CookieAuthority.aheadMax
}
