import MATSignal
import MappingMemory

/// Which HoA a Join gets (protocol.md section 12): pure questions to what is held.
struct Allotment {
    /// Why there is none.
    struct Refusal: Error {
        var code: ResponseCode
        var reason: String

        init(_ code: ResponseCode, _ reason: String) {
            self.code = code
            self.reason = reason
        }
    }

    /// Addresses of a pool that one Join has looked at.
    static let looksMax = 4096
    /// Networks within a pool that one Join steps over: each costs a question for every prefix length.
    static let networksMax = 64

    let server: ServerView
    let leases: LeaseTable
    /// Given in the same write, or in one that is under way.
    let taken: Set<IPPrefix>
    /// The server's own addresses.
    let own: Set<IPAddress>
    let now: Now

    /// What may be looked at for a Join: where what is given and the wish meet.
    ///
    /// - Parameters:
    ///   - gives: pools, and single HoAs.
    ///   - saying: whose these are, for people.
    static func places(_ gives: [IPPrefix], wanted: IPPrefix?, of saying: String, _ server: ServerView) throws(Refusal) -> [IPPrefix] {
        guard let wanted else { return gives }
        guard server.configuration.served.contains(where: { $0.prefix.contains(wanted) || wanted.contains($0.prefix) }) else {
            throw Refusal(.notAuthoritative, "\(wanted.shortText) is not within a prefix served here")
        }
        let places = gives.compactMap { wanted.contains($0) ? $0 : $0.contains(wanted) ? wanted : nil }
        guard !places.isEmpty else {
            throw Refusal(.refused, "\(saying) \(gives.map(\.shortText).joined(separator: ", ")), not for \(wanted.shortText)")
        }
        return places
    }

    /// The first HoA of these places that can be given to the key.
    func hoa(in places: [IPPrefix], for key: PublicKey) throws(Refusal) -> IPPrefix {
        var refusal = Refusal(.notFound, "no address is free in \(places.map(\.shortText).joined(separator: ", "))")
        for place in places {
            guard let served = server.configuration.served(covering: place) else {
                refusal = Refusal(.notAuthoritative, "\(place.shortText) is not within a prefix served here")
                continue
            }
            if let hoa = free(in: place, of: served.prefix, key) { return hoa }
        }
        throw refusal
    }

    private func free(in pool: IPPrefix, of served: IPPrefix, _ key: PublicKey) -> IPPrefix? {
        let bits = 128 - pool.length
        let mask: UInt128 = bits >= 128 ? .max : (1 << UInt128(bits)) - 1
        let base = UInt128(pool.address.high) << 64 | UInt128(pool.address.low)
        // A key is as good as random, and the same at each instance: who asks two of them at once is offered one address.
        var suffix = key.octets.prefix(16).reduce(UInt128(0)) { $0 << 8 | UInt128($1) } & mask
        var networks = 0
        for _ in 0..<(bits < 12 ? 1 << Int(bits) : Self.looksMax) {
            let number = base | suffix
            let prefix = IPPrefix(IPAddress(high: UInt64(truncatingIfNeeded: number >> 64), low: UInt64(truncatingIfNeeded: number)))
            guard isFree(prefix, of: served, pool, key) else {
                suffix = (suffix &+ 1) & mask
                continue
            }
            guard let network = server.network(around: prefix, key, now)?.prefix else { return prefix }
            // All of it is somebody's.
            networks += 1
            guard networks < Self.networksMax, pool.contains(network) else { return nil }
            suffix = ((suffix | ((1 << UInt128(128 - network.length)) - 1)) &+ 1) & mask
        }
        return nil
    }

    /// Whether nobody has it, or has lost it.
    private func isFree(_ prefix: IPPrefix, of served: IPPrefix, _ pool: IPPrefix, _ key: PublicKey) -> Bool {
        guard prefix.address.isUsableUnicast, served.specialName(of: prefix) == nil, pool.specialName(of: prefix) == nil, !taken.contains(prefix),
            !own.contains(prefix.address)
        else { return false }
        if let lease = leases[prefix] {
            guard lease.isReturned && (lease.key == key || !isResting(lease)) || hasEnded(lease) else { return false }
        } else if let certificate = server.registrations.certificates[prefix], certificate.notAfter > now.wallMilliseconds {
            // Enrolled by hand, before that was noted.
            return false
        }
        return true
    }

    /// A visitor gave it back not long ago, so that others may still ask for him there.
    private func isResting(_ lease: Lease) -> Bool {
        guard lease.isVisitors, let end = lease.endsAt, end < now.wallMilliseconds else { return lease.isVisitors }
        return now.wallMilliseconds - end <= UInt64(max(0, server.configuration.visitorLeaseIdle.millisecondsSaturated))
    }

    /// Its certificate has ended, and nothing was heard of its node for long.
    func hasEnded(_ lease: Lease) -> Bool {
        let certificate = server.registrations.certificates[lease.prefix]
        let mapping = server.registrations[lease.prefix].flatMap { $0.isRevocation ? nil : $0 }
        let last = [lease.givenAt, certificate?.notAfter ?? 0, mapping?.provenAt ?? 0].max() ?? 0
        let idle = lease.isVisitors ? server.configuration.visitorLeaseIdle : server.configuration.leaseIdle
        let (end, isOver) = last.addingReportingOverflow(UInt64(max(0, idle.millisecondsSaturated)))
        return !isOver && end < now.wallMilliseconds
    }
}
