import MATCore
import MATSignal

// Visitors (protocol.md section 12): nodes that are at home elsewhere, and show it by their home's certificate.

extension Joining {
    mutating func reconfigure(_ policy: VisitorPolicy?) {
        if let policy { homes.reconfigure(perSecond: policy.lookUpsPerSecond) }
    }

    /// A visitor's Join came under a valid cookie.
    func visit(_ join: Join, _ home: HomeAddress, _ certificate: Certificate, _ request: Request, _ server: ServerView) -> OnJoin {
        func refuse(_ code: ResponseCode, _ reason: String) -> OnJoin { .answer(Self.refuse(request, join.key, code, reason)) }
        guard let policy = server.configuration.visitors else { return refuse(.refused, "this server takes no visitors") }
        guard server.configuration.served(covering: certificate.prefix) == nil else {
            return refuse(.refused, "\(home) is at home here, and no visitor; a token gives it another address")
        }
        let origin = Lease.Origin.visitor(home, issuer: certificate.issuerID)
        let isKnown = !leases.held(by: join.key, origin).isEmpty
        if let reason = policy.refusal(of: home, from: isKnown ? nil : request.source.address) { return refuse(.refused, reason) }
        guard certificate.prefix.contains(home.address), certificate.nodeKey == join.key else {
            return refuse(.authenticationFailed, "the certificate of \(certificate.prefix.shortText) is not that of \(home) for the key that joins")
        }
        if let reason = certificate.prefix.certificateRefusal { return refuse(.authenticationFailed, reason) }
        let statements = server.configuration.publicKeys.compactMap { join.statement(to: $0) }
        let candidate = JoinQueue.Candidate(key: join.key, origin: origin, wanted: join.wanted, lifetime: join.lifetime, requests: [request])
        return .verify(
            VerificationJob(JoinClaim(oneOf: statements, signature: join.signature)),
            Pending(request: request, candidate: candidate, queue: .visitor(home), home: certificate))
    }

    /// The node has signed: now its home is asked about.
    mutating func askAbout(_ home: Certificate, _ pending: Pending, _ server: ServerView, _ now: Now) -> [Action] {
        switch homes.wanted(pending, of: home, server.limits, now) {
        case .known(let answer): return [check(home, pending, answer, now)]
        case .waits: return []
        case .ask(let name): return [.lookUp(name)]
        case .refused(let reason): return [.answer(Self.refuse(pending.request, pending.candidate.key, .tryLater, reason, lifetime: 2))]
        }
    }

    /// The DNS has answered, whoever asked.
    mutating func resolved(_ name: IPPrefix, _ result: IMSLookupResult, _ now: Now) -> [Action] {
        let resolved = homes.resolved(name, result, now)
        return resolved.waiting.compactMap { pending in pending.home.map { check($0, pending, resolved.answer, now) } }
    }

    private func check(_ home: Certificate, _ pending: Pending, _ answer: VisitorHomes.Answer, _ now: Now) -> Action {
        func refuse(_ code: ResponseCode, _ reason: String) -> Action { .answer(Self.refuse(pending.request, pending.candidate.key, code, reason)) }
        switch answer {
        case .none(let code, let reason): return refuse(code, reason)
        case .keys(let keys):
            do throws(VerificationFailure) {
                try home.key.checkTimes(of: home.prefix, now)
            } catch {
                return refuse(.authenticationFailed, error.reason)
            }
            var checked = pending
            checked.isHomeChecked = true
            return .verify(VerificationJob(home, issuers: keys), checked)
        }
    }

    // MARK: What they get

    /// - Parameter issuer: the key of the home's IMS.
    mutating func decideVisit(
        _ candidate: JoinQueue.Candidate, certifiedBy issuer: UInt64, _ batch: Batch, _ server: ServerView, _ now: Now
    ) throws(Allotment.Refusal) -> Decision {
        guard let policy = server.configuration.visitors else { throw Allotment.Refusal(.refused, "this server takes no visitors") }
        let idle = UInt64(max(0, server.configuration.visitorLeaseIdle.millisecondsSaturated))
        leases.expire(idle: idle, now)
        let mine = leases.held(by: candidate.key, candidate.origin)
        let same = mine.first { candidate.wanted?.contains($0.prefix) ?? true }
        if candidate.lifetime == 0 { return try giveBack(candidate, server, now) }
        let lifetime = min(policy.lifetime, candidate.lifetime.map { .seconds(Int64($0)) } ?? policy.lifetime)
        if let same, let certificate = server.registrations.certificates[same.prefix], certificate.nodeKey == same.key {
            // Renewed by repetition, but not for every repetition.
            let left = certificate.notAfter > now.wallMilliseconds ? certificate.notAfter - now.wallMilliseconds : 0
            let whole = certificate.notAfter - min(certificate.notAfter, certificate.notBefore)
            if left > whole / 2 { return .again(asked(for: same, server), Self.grant(certificate, now)) }
        }
        let prefix: IPPrefix
        if let same {
            // Who comes back late is one visitor more.
            if !leases.isVisiting(same.prefix) { _ = try open([same.prefix], certifiedBy: issuer, policy) }
            prefix = same.prefix
        } else {
            let places = try Allotment.places(policy.pools, wanted: candidate.wanted, of: "visitors get", server)
            // One at a time of each family.
            let free = places.filter { place in !mine.contains { $0.prefix.family == place.family } }
            if free.isEmpty, let other = mine.first(where: { has in places.contains { $0.family == has.prefix.family } }) {
                throw Allotment.Refusal(.refused, "this visitor has \(other.prefix.shortText); it gives that back before it gets another one")
            }
            prefix = try hoa(in: open(free, certifiedBy: issuer, policy), for: candidate, batch, idle: idle, server, now)
        }
        guard let certificate = server.issue(prefix, candidate.key, lifetime, now) else {
            throw Allotment.Refusal(.tryLater, "no certificate could follow the newest of \(prefix.shortText): a clock was wrong, or is")
        }
        var lease = Lease(prefix, key: candidate.key, candidate.origin, givenAt: certificate.notBefore)
        lease.version = (leases[prefix]?.version ?? 0) + 1
        // Only a Join renews it, for which its home is looked at again.
        lease.isRenewed = false
        lease.endsAt = certificate.notAfter
        return .give(lease, Self.grant(certificate, now), certificate)
    }

    /// Those of the places of which one visitor more may have an address.
    private func open(_ places: [IPPrefix], certifiedBy issuer: UInt64, _ policy: VisitorPolicy) throws(Allotment.Refusal) -> [IPPrefix] {
        let open = places.filter { leases.visitorsCount(of: $0.family) + visitorsTaken[$0.family] < policy.leasesMax($0.family) }
        guard !open.isEmpty else {
            let families = Set(places.map(\.family)).count
            throw Allotment.Refusal(.notFound, "as many visitors as may be are here\(families == 1 ? "" : ", of both families")")
        }
        guard leases.visitorsCount(certifiedBy: issuer) + visitorsTakenByIssuer[issuer, default: 0] < policy.leasesPerHomeMax else {
            throw Allotment.Refusal(.notFound, "\(policy.leasesPerHomeMax) visitors of this home's IMS are here, and no more may be")
        }
        return open
    }

    private mutating func hoa(
        in places: [IPPrefix], for candidate: JoinQueue.Candidate, _ batch: Batch, idle: UInt64, _ server: ServerView, _ now: Now
    ) throws(Allotment.Refusal) -> IPPrefix {
        guard leases.hasRoom else { throw Allotment.Refusal(.notFound, "there are \(leases.count) leases, and room for no more") }
        // What others have left comes first, of each family.
        for family in AddressFamily.allCases where places.contains(where: { $0.family == family }) {
            guard let left = leases.takeLeft(of: family, idle: idle, now) else { continue }
            if places.contains(where: { $0.contains(left) }),
                let hoa = try? allotment(for: candidate, batch, server, now).hoa(in: [left], for: candidate.key)
            {
                return hoa
            }
            leases.putBack(left)
        }
        return try allotment(for: candidate, batch, server, now).hoa(in: places, for: candidate.key)
    }

    /// What writes on their way give to visitors counts before it is durable.
    mutating func countVisitors(_ given: [JoinQueue.Given], by one: Int) {
        for each in given where each.isFurtherVisitor {
            guard case .visitor(_, let issuer) = each.candidate.origin else { continue }
            visitorsTaken[each.grant.hoa.family] += one
            visitorsTakenByIssuer[issuer, default: 0] += one
            if visitorsTakenByIssuer[issuer] == 0 { visitorsTakenByIssuer[issuer] = nil }
        }
    }
}
