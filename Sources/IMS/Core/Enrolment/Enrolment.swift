import MATRuntime
import MATSignal
import MappingMemory

/// Why no certificate was issued, for the person who asked.
public struct EnrolmentRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

extension IMSCore {
    /// Issues a certificate: this key may sign mappings for this HoA. It counts once its write is durable.
    ///
    /// - Parameters:
    ///   - lifetime: how long it is valid; the configured time if `nil`.
    ///   - isForced: whether it may take the HoA, or a part of it, from whoever has it now, and take back what was issued while a clock was
    ///     far ahead.
    ///   - isClockConfirmed: whether NTP says that the clock is right; for the sentence of a refusal.
    /// - Returns: the certificate, the ticket whose `stored` decides, and what to do.
    public mutating func enrol(
        _ hoa: HomeAddress, prefixLength: UInt8 = 128, key: PublicKey, lifetime: Duration? = nil, isForced: Bool = false,
        isClockConfirmed: Bool = false, now: Now
    ) throws(EnrolmentRefusal) -> (certificate: Certificate, ticket: StoreTicket, actions: [IMSAction]) {
        guard hoa.address.isUsableUnicast else { throw EnrolmentRefusal("\(hoa) can't be a home address") }
        guard let prefix = IPPrefix(hoa.address, length: prefixLength), prefixLength > (hoa.isIPv4 ? 96 : 0) else {
            throw EnrolmentRefusal("\(hoa) does not fit the prefix length")
        }
        if let refusal = prefix.certificateRefusal { throw EnrolmentRefusal(refusal) }
        guard let served = configuration.served(covering: prefix) else {
            let own = configuration.served.map(\.prefix.description).joined(separator: ", ")
            throw EnrolmentRefusal(
                "\(prefix) is not within a prefix served here (\(own)); ask the IMS of that prefix, or add it to `prefixes`")
        }
        if let name = served.prefix.specialName(of: prefix) {
            throw EnrolmentRefusal("\(hoa) is the \(name) of \(served.prefix), which no node can have; choose another address")
        }
        if !isForced, let loser = loser(to: prefix, key, now) {
            throw EnrolmentRefusal("\(loser); --force enrols \(prefix.shortText) for the new key all the same")
        }
        if let refusal = store.refusalForOperators { throw EnrolmentRefusal("\(refusal); try again later") }
        guard writes.count < configuration.limits.writesMax else {
            throw EnrolmentRefusal("too many writes are waiting for the store; try again")
        }
        guard let signingKey = configuration.signingKey else {
            throw EnrolmentRefusal("this server has no signing key; use `mat enrol` where the key is kept")
        }
        let lifetime = lifetime ?? configuration.certificateLifetime
        if let ahead = issued[prefix], ahead.notBefore > now.latestBelieved {
            guard isForced else {
                let doubt = isClockConfirmed ? "" : " (NTP does not confirm it)"
                throw EnrolmentRefusal(
                    "the newest certificate of \(prefix.shortText) begins on \(Self.date(ahead.notBefore)), and this host's clock says \(Self.date(now.wallMilliseconds))\(doubt): one of them is wrong. If the clock is wrong now, set it; if it was wrong then, --force takes back what was issued then"
                )
            }
            return try enrolInstead(of: prefix, key, lifetime, signingKey, now)
        }
        guard let certificate = issue(prefix, key, lifetime, now) else {
            throw EnrolmentRefusal("the crypto library does not sign; this should not happen")
        }
        let ticket = newTicket()
        writes[ticket] = PendingWrite(mapping: nil, issued: certificate, waiting: [])
        actions.append(.commit(ticket, StoreChange(issued: certificate)))
        return (certificate, ticket, takeActions(now))
    }

    /// Issues a certificate in the place of one that begins too far ahead, which nobody believes until then, and which nothing could follow.
    /// A mapping under such a certificate gives way to a mark that revokes it; the store takes both against its own rule of what is newer.
    private mutating func enrolInstead(
        of prefix: IPPrefix, _ key: PublicKey, _ lifetime: Duration, _ signingKey: SigningKey, _ now: Now
    ) throws(EnrolmentRefusal) -> (certificate: Certificate, ticket: StoreTicket, actions: [IMSAction]) {
        var mark: StoredMapping?
        var notBefore = now.wallMilliseconds
        let held = mappings.certificateNotBefore(of: prefix)
        if let held, held <= now.latestBelieved { notBefore = max(notBefore, held + 1) }
        if let held, held > now.latestBelieved {
            guard let tombstone = tombstone(of: prefix, notBefore: notBefore, signingKey) else {
                throw EnrolmentRefusal("the crypto library does not sign; this should not happen")
            }
            mark = .revocation(tombstone)
            notBefore += 1
        }
        guard let certificate = sign(prefix, key, lifetime, notBefore: notBefore, signingKey) else {
            throw EnrolmentRefusal("the crypto library does not sign; this should not happen")
        }
        let ticket = newTicket()
        writes[ticket] = PendingWrite(mapping: mark, issued: certificate, waiting: [])
        if mark != nil { newestWrites[prefix] = ticket }
        actions.append(.commit(ticket, StoreChange(mapping: mark, issued: certificate, latest: now.latestBelieved)))
        return (certificate, ticket, takeActions(now))
    }

    private func sign(
        _ prefix: IPPrefix, _ key: PublicKey, _ lifetime: Duration, notBefore: UInt64, _ signingKey: SigningKey
    ) -> Certificate? {
        let notAfter = notBefore + UInt64(max(0, lifetime.millisecondsSaturated))
        return Certificate(
            issuing: HomeAddress(prefix.address), prefixLength: prefix.length, nodeKey: key, notBefore: notBefore,
            notAfter: notAfter,
            with: signingKey)
    }

    /// Not-before grows strictly, so that the newest certificate of an HoA is always the one issued last.
    func issue(_ prefix: IPPrefix, _ key: PublicKey, _ lifetime: Duration, _ now: Now) -> Certificate? {
        guard let signingKey = configuration.signingKey else { return nil }
        guard let notBefore = nextNotBefore(of: prefix, now) else { return nil }
        return sign(prefix, key, lifetime, notBefore: notBefore, signingKey)
    }

    /// Now, or just after the newest certificate of the HoA; `nil` if that one begins too far ahead for anybody to believe a later one.
    func nextNotBefore(of prefix: IPPrefix, _ now: Now) -> UInt64? {
        guard let newest = issued[prefix] else { return now.wallMilliseconds }
        guard newest.notBefore < now.latestBelieved else { return nil }
        return max(now.wallMilliseconds, newest.notBefore + 1)
    }

    /// A new certificate for the same key, when the last third of the old one's time has begun, or its IMS key is being rotated out. Not
    /// whenever the signing key is another: in a cluster the servers change it one after the other, and would sign against each other.
    func renewed(_ certificate: Certificate, _ now: Now) -> Certificate? {
        guard let signingKey = configuration.signingKey, certificate.notAfter > certificate.notBefore else { return nil }
        let left = certificate.notAfter > now.wallMilliseconds ? certificate.notAfter - now.wallMilliseconds : 0
        let isOfOldKey =
            configuration.previousIDs.contains(certificate.issuerID) && certificate.issuerID != signingKey.publicKey.id
        guard isOfOldKey || left < (certificate.notAfter - certificate.notBefore) / 3 else { return nil }
        // For as long as the one before: whoever asked for a short life must not get the configured one by waiting.
        let lifetime = Duration.milliseconds(Int64(clamping: certificate.notAfter - certificate.notBefore))
        return issue(certificate.prefix, certificate.nodeKey, lifetime, now)
    }

    // MARK: Who would be thrown out

    /// Whom an enrolment would take something from, in a sentence; `nil` if nobody. That is who has this HoA with another key, a network that the
    /// HoA lies within, or who lies within the network: the longest prefix wins, so overlaps change where packets go.
    private func loser(to prefix: IPPrefix, _ key: PublicKey, _ now: Now) -> String? {
        if let held = enrolled(prefix, now), held.nodeKey != key {
            return
                "\(prefix.shortText) is enrolled for another key since \(Self.date(held.notBefore)), \(whereabouts(of: prefix, now)): that node would be thrown out"
        }
        for length in (1..<prefix.length).reversed() {
            let covering = IPPrefix(covering: prefix.address, length: length)
            guard let held = enrolled(covering, now), held.nodeKey != key else { continue }
            return
                "\(prefix.shortText) lies within the network \(covering), enrolled for another key since \(Self.date(held.notBefore)), \(whereabouts(of: covering, now)): it would lose this part"
        }
        guard prefix.length < 128 else { return nil }
        let within = enrolledWithin(prefix, key, now)
        guard let first = within.first else { return nil }
        let others =
            within.count > 1 ? ", one of \(within.count == Self.losersMax ? "at least " : "")\(within.count) such within it" : ""
        return
            "\(first.shortText)\(others), is enrolled for another key, \(whereabouts(of: first, now)): \(prefix) would overlap it"
    }

    /// Names looked for; a sentence needs no more.
    private static let losersMax = 100

    /// The newest certificate of exactly this prefix, if it is still good for anything.
    private func enrolled(_ prefix: IPPrefix, _ now: Now) -> Certificate? {
        guard let certificate = issued[prefix], certificate.notAfter > now.wallMilliseconds else { return nil }
        if let mapping = mappings[prefix], mapping.isRevocation, mapping.certified.certificate == certificate { return nil }
        return certificate
    }

    /// In the order of their addresses, the first few. Walks through all that is registered: for people's commands only.
    private func enrolledWithin(_ prefix: IPPrefix, _ key: PublicKey, _ now: Now) -> [IPPrefix] {
        let isLoser = { (inner: IPPrefix) in
            prefix.contains(inner) && inner != prefix && (enrolled(inner, now).map { $0.nodeKey != key } ?? false)
        }
        let found = Set(mappings.prefixes(count: Self.losersMax, where: isLoser))
            .union(issued.unusedPage(count: Self.losersMax, where: isLoser).map(\.prefix))
        return Array(found.sorted().prefix(Self.losersMax))
    }

    private func whereabouts(of prefix: IPPrefix, _ now: Now) -> String {
        guard let mapping = mappings[prefix], !mapping.isRevocation else { return "not seen yet" }
        guard mapping.isCurrent(now) else { return "last registered on \(Self.date(mapping.provenAt))" }
        guard let locator = mapping.record.locators.first else { return "withdrawn at present" }
        return "registered at \(locator.moa)"
    }

    /// The day, as people write it, in UTC.
    private static func date(_ milliseconds: UInt64) -> String {
        UTCTime(unixSeconds: Int64(milliseconds / 1000))?.day ?? "\(milliseconds) ms after 1970"
    }
}

extension IPPrefix {
    /// What an address of this network is that can't be a node's: its first (the network itself; in IPv6 the address of all its routers,
    /// RFC 4291 section 2.6.1) and, in IPv4, its last. `nil` for any other, for networks within, and for point-to-point networks.
    func specialName(of inner: IPPrefix) -> String? {
        guard inner.length == 128, length < 127 else { return nil }
        if inner.address == address {
            return isIPv4 ? "network address" : "address of all routers (the subnet-router anycast address)"
        }
        let last = IPAddress(high: address.high, low: address.low | (length >= 64 ? UInt64.max >> UInt64(length - 64) : .max))
        return isIPv4 && inner.address == last ? "broadcast address" : nil
    }
}
