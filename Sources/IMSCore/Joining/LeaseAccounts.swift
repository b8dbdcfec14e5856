import MATCore
import MATSignal

/// What an authority is told of a lease.
public struct LeaseChange: Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
        case began
        /// It is used.
        case goesOn
        case ended(Cause)
    }

    public enum Cause: Hashable, Sendable {
        case givenBack
        /// Its certificate has ended.
        case expired
        /// Revoked, or taken by an operator.
        case revoked
        /// Another key has the HoA now.
        case taken
    }

    public var authority: String
    public var kind: Kind
    public var lease: Lease
    /// Where its node is, if an update has just said that.
    public var source: Endpoint?
    /// Unix time in ms.
    public var at: UInt64

    /// Differs for each time that an HoA is given, and is the same at all servers.
    public var session: String { "\(lease.prefix.shortText)-\(String(lease.givenAt, radix: 16))" }
    public var seconds: UInt64 { at > lease.givenAt ? (at - lease.givenAt) / 1000 : 0 }
}

/// The accounts of leases: when one opens and closes, and how often it is said that it is used.
///
/// ```
///              given (written here)          an update, `interim` after the last                given back, taken by another key (written here)
///   (closed) ───────────────────────► open ─────────────────────────────────────► open ──┬────────────────────────────────────────────────────► (closed)
///                                                                                        └ its certificate has ended, or is another's: written as closed ─┘
/// ```
/// Several servers may see the same: each change follows from a write, and the store takes one server's. So the mark that an account is closed is a
/// write of its own.
struct LeaseAccounts: Sendable {
    /// Leases that are looked at in one go; with more, the next go follows at once.
    static let looksMax = 256
    /// How soon it is looked at one that has just been given or read.
    static let firstLook: Duration = .seconds(60)
    /// Clocks are set: no look is put off for longer.
    static let lookMax: Duration = .seconds(3600)
    static let betweenLooks: Duration = .milliseconds(50)

    private var looks = DeadlineQueue<IPPrefix>()
    private var told: [IPPrefix: MonotonicTime] = [:]
    /// Whether all leases have yet to be followed, those before `followedUpTo` excepted.
    var followAll = false
    private var followedUpTo: IPPrefix?

    var nextDeadline: MonotonicTime? { mutating get { followAll ? MonotonicTime(nanoseconds: 0) : looks.next } }

    /// A lease is held.
    mutating func follow(_ lease: Lease, _ configuration: IMSCoreConfiguration, _ now: Now) {
        guard !Self.isClosed(lease), Self.authority(of: lease, configuration) != nil else {
            looks.cancel(lease.prefix)
            told[lease.prefix] = nil
            return
        }
        if looks[lease.prefix] == nil { looks.set(lease.prefix, at: now.monotonic + Self.firstLook) }
    }

    /// What a lease that was written here changes.
    ///
    /// - Parameter cause: why the one before would have ended by now; `nil` if it has not.
    func changes(
        to lease: Lease, from before: Lease?, _ cause: LeaseChange.Cause?, _ configuration: IMSCoreConfiguration, _ now: Now
    ) -> [LeaseChange] {
        var changes: [LeaseChange] = []
        let goesOn = before.map { $0.key == lease.key && $0.givenAt == lease.givenAt && $0.origin == lease.origin } ?? false
        if let before, !Self.isClosed(before), !goesOn || Self.isClosed(lease), let authority = Self.authority(of: before, configuration) {
            let why = goesOn && lease.isReturned ? .givenBack : cause ?? (before.key == lease.key ? .expired : .taken)
            changes.append(LeaseChange(authority: authority.name, kind: .ended(why), lease: before, at: now.wallMilliseconds))
        }
        let wasOpen = goesOn && before.map { !Self.isClosed($0) } ?? false
        if !Self.isClosed(lease), !wasOpen, let authority = Self.authority(of: lease, configuration) {
            changes.append(LeaseChange(authority: authority.name, kind: .began, lease: lease, at: now.wallMilliseconds))
        }
        return changes
    }

    /// Its node has registered here.
    ///
    /// - Returns: `nil` if that was said lately.
    mutating func isUsed(_ lease: Lease, from source: Endpoint, _ configuration: IMSCoreConfiguration, _ now: Now) -> LeaseChange? {
        guard !Self.isClosed(lease), let authority = Self.authority(of: lease, configuration) else { return nil }
        let interim = authority.interim
        if let last = told[lease.prefix] {
            guard now.monotonic - last >= interim else { return nil }
        } else {
            // Its beginning, or what another server or run has said, is news enough.
            let age = now.wallMilliseconds > lease.givenAt ? now.wallMilliseconds - lease.givenAt : 0
            guard age >= UInt64(max(0, interim.millisecondsSaturated)) else { return nil }
        }
        told[lease.prefix] = now.monotonic
        return LeaseChange(authority: authority.name, kind: .goesOn, lease: lease, source: source, at: now.wallMilliseconds)
    }

    mutating func mayHaveEnded(_ prefix: IPPrefix, _ now: Now) { looks.set(prefix, at: now.monotonic) }

    /// Leases whose accounts are to be closed.
    mutating func due(_ server: ServerView, _ now: Now) -> [Lease] {
        if followAll { followMore(server, now) }
        var over: [Lease] = []
        var looked = 0
        while looked < Self.looksMax, let prefix = looks.takeDue(now.monotonic) {
            looked += 1
            guard let lease = server.leases[prefix], !Self.isClosed(lease) else { continue }
            // Looked at again also if it has ended: its mark may not be taken by the store.
            looks.set(prefix, at: now.monotonic + Self.lookAgain(lease, server, now))
            if Self.cause(of: lease, server) != nil || Self.end(of: lease, server) <= now.wallMilliseconds { over.append(lease) }
        }
        return over
    }

    private mutating func followMore(_ server: ServerView, _ now: Now) {
        let page = server.leases.page(after: followedUpTo, count: LeaseTable.leasesMax)
        for lease in page { follow(lease, server.configuration, now) }
        followAll = false
    }

    private static func lookAgain(_ lease: Lease, _ server: ServerView, _ now: Now) -> Duration {
        let end = end(of: lease, server)
        let left = end > now.wallMilliseconds ? Duration.milliseconds(Int64(clamping: end - now.wallMilliseconds)) : firstLook
        return max(.seconds(1), min(lookMax, left))
    }

    private static func end(of lease: Lease, _ server: ServerView) -> UInt64 { server.registrations.certificates[lease.prefix]?.notAfter ?? 0 }

    /// Why a lease has ended though its time has not come; `nil` if it has not.
    static func cause(of lease: Lease, _ server: ServerView) -> LeaseChange.Cause? {
        guard let certificate = server.registrations.certificates[lease.prefix], certificate.nodeKey != lease.key else { return nil }
        return server.registrations[lease.prefix]?.isRevocation == true ? .revoked : .taken
    }

    private static func isClosed(_ lease: Lease) -> Bool { lease.isReturned || lease.isClosed }

    /// Who is told of it: of what operators gave by hand nobody is.
    static func authority(of lease: Lease, _ configuration: IMSCoreConfiguration) -> Authority? {
        guard case .token = lease.origin, let authority = configuration.authority(over: lease.prefix), authority.isToldOfLeases else { return nil }
        return authority
    }
}
