import MATCore
import MATSignal
import MappingMemory

/// Why no certificate was issued, for the person who asked.
public struct EnrolmentRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

/// That a key may sign mappings for an HoA, as an operator wants it.
///
/// ```
///   served here? ─► nobody would be thrown out ─► the store writes ─► a signing key ─► the newest certificate is of the past ─► issue
///                          │ --force                                                         │ no: a clock was wrong then or is now
///                          ▼                                                                 ▼ --force
///                      whoever has it loses it                                 issue in the place of it; a mapping under it is revoked
/// ```
struct Enrolment: Sendable {
    var hoa: HomeAddress
    var prefixLength: UInt8
    var key: PublicKey
    /// How long the certificate is valid; the configured time if `nil`.
    var lifetime: Duration?
    /// Whether it may take the HoA, or a part of it, from whoever has it now, and take back what was issued while a clock was far ahead.
    var isForced: Bool
    /// Whether its node gets another certificate when this one ends.
    var isRenewed = true
    /// Whether NTP says that the clock is right; for the sentence of a refusal.
    var isClockConfirmed: Bool

    /// What is to be made durable.
    struct Issued: Sendable {
        var certificate: Certificate
        var write: PendingWrite
        /// What the store holds under certificates that begin later than this (Unix, ms) gives way.
        var latest: UInt64?
    }

    func issue(_ server: ServerView, _ random: inout CoreRandom, _ now: Now) throws(EnrolmentRefusal) -> Issued {
        let (prefix, configuration) = (try prefix(server), server.configuration)
        if !isForced, let loser = server.loser(to: prefix, key, now) {
            throw EnrolmentRefusal("\(loser); --force enrols \(prefix.shortText) for the new key all the same")
        }
        if let refusal = server.store.refusalForOperators { throw EnrolmentRefusal("\(refusal); try again later") }
        guard server.registrations.hasRoomForWrite(server.limits) else {
            throw EnrolmentRefusal("too many writes are waiting for the store; try again")
        }
        guard let signingKey = configuration.signingKey else {
            throw EnrolmentRefusal("this server has no signing key; use `mat enrol` where the key is kept")
        }
        if let ahead = server.registrations.certificates[prefix], ahead.notBefore > now.latestBelieved {
            guard isForced else {
                let doubt = isClockConfirmed ? "" : " (NTP does not confirm it)"
                throw EnrolmentRefusal(
                    "the newest certificate of \(prefix.shortText) begins on \(utcDay(ahead.notBefore)), and this host's clock says \(utcDay(now.wallMilliseconds))\(doubt): one of them is wrong. If the clock is wrong now, set it; if it was wrong then, --force takes back what was issued then"
                )
            }
            return try issueInstead(of: prefix, signingKey, server, &random, now)
        }
        guard let certificate = server.issue(prefix, key, lifetime ?? configuration.certificateLifetime, now) else {
            throw EnrolmentRefusal("the crypto library does not sign; this should not happen")
        }
        var lease = Lease(prefix, key: key, .hand, givenAt: now.wallMilliseconds)
        lease.version = (server.leases[prefix]?.version ?? 0) + 1
        lease.isRenewed = isRenewed
        if !isRenewed { lease.endsAt = certificate.notAfter }
        return Issued(certificate: certificate, write: PendingWrite(rows: [lease.row], certificates: [certificate]))
    }

    /// What is enrolled, if it can be.
    private func prefix(_ server: ServerView) throws(EnrolmentRefusal) -> IPPrefix {
        guard hoa.address.isUsableUnicast else { throw EnrolmentRefusal("\(hoa) can't be a home address") }
        guard let prefix = IPPrefix(hoa.address, length: prefixLength), prefixLength > hoa.family.leadingBits else {
            throw EnrolmentRefusal("\(hoa) does not fit the prefix length")
        }
        if let refusal = prefix.certificateRefusal { throw EnrolmentRefusal(refusal) }
        guard let served = server.configuration.served(covering: prefix) else {
            let own = server.configuration.served.map(\.prefix.description).joined(separator: ", ")
            throw EnrolmentRefusal(
                "\(prefix) is not within a prefix served here (\(own)); ask the IMS of that prefix, or add it to `prefixes`")
        }
        if let name = served.prefix.specialName(of: prefix) {
            throw EnrolmentRefusal("\(hoa) is the \(name) of \(served.prefix), which no node can have; choose another address")
        }
        return prefix
    }

    /// Issues a certificate in the place of one that begins too far ahead, which nobody believes until then, and which nothing could follow.
    /// A mapping under such a certificate gives way to a mark that revokes it; the store takes both against its own rule of what is newer.
    private func issueInstead(
        of prefix: IPPrefix, _ signingKey: SigningKey, _ server: ServerView, _ random: inout CoreRandom, _ now: Now
    ) throws(EnrolmentRefusal) -> Issued {
        var mark: StoredMapping?
        var notBefore = now.wallMilliseconds
        let held = server.registrations.certificateNotBefore(of: prefix)
        if let held, held <= now.latestBelieved { notBefore = max(notBefore, held + 1) }
        if let held, held > now.latestBelieved {
            guard let tombstone = Tombstone.make(of: prefix, notBefore: notBefore, seed: random.seed(), signedBy: signingKey)
            else {
                throw EnrolmentRefusal("the crypto library does not sign; this should not happen")
            }
            if let refusal = server.registrations.memoryRefusal(for: tombstone.record) {
                throw EnrolmentRefusal("no memory for the mark that revokes what was issued then: \(refusal)")
            }
            mark = .revocation(tombstone)
            notBefore += 1
        }
        let lifetime = lifetime ?? server.configuration.certificateLifetime
        guard let certificate = signingKey.certify(prefix, key, lifetime, notBefore: notBefore) else {
            throw EnrolmentRefusal("the crypto library does not sign; this should not happen")
        }
        return Issued(
            certificate: certificate, write: PendingWrite(mapping: mark, issued: certificate), latest: now.latestBelieved)
    }
}

extension ServerView {
    /// Whom an enrolment would take something from, in a sentence; `nil` if nobody. That is who has this HoA with another key, a network that the
    /// HoA lies within, or who lies within the network: the longest prefix wins, so overlaps change where packets go.
    func loser(to prefix: IPPrefix, _ key: PublicKey, _ now: Now) -> String? {
        if let held = enrolled(prefix, now), held.nodeKey != key {
            return
                "\(prefix.shortText) is enrolled for another key since \(utcDay(held.notBefore)), \(whereabouts(of: prefix, now)): that node would be thrown out"
        }
        if let held = network(around: prefix, key, now) {
            let covering = held.prefix
            return
                "\(prefix.shortText) lies within the network \(covering), enrolled for another key since \(utcDay(held.notBefore)), \(whereabouts(of: covering, now)): it would lose this part"
        }
        guard prefix.length < 128 else { return nil }
        let within = enrolledWithin(prefix, key, now)
        guard let first = within.first else { return nil }
        let others =
            within.count > 1 ? ", one of \(within.count == Self.losersMax ? "at least " : "")\(within.count) such within it," : ""
        return
            "\(first.shortText)\(others) is enrolled for another key, \(whereabouts(of: first, now)): \(prefix) would overlap it"
    }

    /// The certificate of the smallest network of another key that the prefix lies within.
    func network(around prefix: IPPrefix, _ key: PublicKey, _ now: Now) -> Certificate? {
        (1..<prefix.length).reversed().lazy.compactMap { length in
            enrolled(IPPrefix(covering: prefix.address, length: length), now)
        }.first { $0.nodeKey != key }
    }

    /// Names looked for; a sentence needs no more.
    private static let losersMax = 100

    /// The newest certificate of exactly this prefix, if it is still good for anything.
    private func enrolled(_ prefix: IPPrefix, _ now: Now) -> Certificate? {
        guard let certificate = registrations.certificates[prefix], certificate.notAfter > now.wallMilliseconds else {
            return nil
        }
        if let mapping = registrations[prefix], mapping.isRevocation, mapping.certified.certificate == certificate { return nil }
        return certificate
    }

    /// In the order of their addresses, the first few. Walks through all that is registered: for people's commands only.
    private func enrolledWithin(_ prefix: IPPrefix, _ key: PublicKey, _ now: Now) -> [IPPrefix] {
        let isLoser = { (inner: IPPrefix) in
            prefix.contains(inner) && inner != prefix && (enrolled(inner, now).map { $0.nodeKey != key } ?? false)
        }
        let found = Set(registrations.prefixes(count: Self.losersMax, where: isLoser))
            .union(registrations.certificates.unusedPage(count: Self.losersMax, where: isLoser).map(\.prefix))
        return Array(found.sorted().prefix(Self.losersMax))
    }

    private func whereabouts(of prefix: IPPrefix, _ now: Now) -> String {
        guard let mapping = registrations[prefix], !mapping.isRevocation else { return "not seen yet" }
        guard mapping.isCurrent(now) else { return "last registered on \(utcDay(mapping.provenAt))" }
        guard let locator = mapping.record.locators.first else { return "withdrawn at present" }
        return "registered at \(locator.moa)"
    }
}

extension IPPrefix {
    /// What an address of this network is that can't be a node's: its first (the network itself; in IPv6 the address of all its routers,
    /// RFC 4291 section 2.6.1) and, in IPv4, its last. `nil` for any other, for networks within, and for point-to-point networks.
    func specialName(of inner: IPPrefix) -> String? {
        guard inner.length == 128, length < 127 else { return nil }
        if inner.address == address {
            return family == .ipv4 ? "network address" : "address of all routers (the subnet-router anycast address)"
        }
        let last = IPAddress(high: address.high, low: address.low | (length >= 64 ? UInt64.max >> UInt64(length - 64) : .max))
        return family == .ipv4 && inner.address == last ? "broadcast address" : nil
    }
}

/// The day, as people write it, in UTC.
private func utcDay(_ milliseconds: UInt64) -> String {
    UTCTime(unixSeconds: Int64(milliseconds / 1000))?.day ?? "\(milliseconds) ms after 1970"
}
