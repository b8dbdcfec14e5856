import IMSCore
import MATSignal
import RADIUS

// Questions and leases in RADIUS's words. What these attributes mean here stands in imsd.yaml(5).

extension [RADIUSAttribute] {
    private typealias Kind = RADIUSAttribute.Kind

    /// Of an Access-Request.
    ///
    /// The token stands as user and as password, as devices' addresses do where no person can be asked: RFC 2865 section 4.1 wants a password, and
    /// the secret that there is must not leave.
    init(_ question: Authorisation, identifier: String) {
        self = [
            RADIUSAttribute(Kind.userName, text: "\(question.token)"), RADIUSAttribute(Kind.userPassword, text: "\(question.token)"),
            RADIUSAttribute(Kind.serviceType, number: RADIUSAttribute.callCheck),
            RADIUSAttribute(Kind.nasIdentifier, text: identifier), RADIUSAttribute(Kind.portType, number: RADIUSAttribute.virtualPort),
            RADIUSAttribute(Kind.callingStation, text: "\(TokenID(rawValue: question.key.id))"),
            RADIUSAttribute(Kind.tunnelClient, text: "\(question.source.address)"),
        ]
        if question.places.count == 1, let only = question.places.first, only.length == 128 { append(RADIUSAttribute(framed: only)) }
    }

    /// Of an Accounting-Request. The same octets however often it is sent: when it happened stands in Event-Timestamp.
    init(_ change: LeaseChange, identifier: String) {
        let lease = change.lease
        var status = AccountingRecord.Status.start
        var rest: [RADIUSAttribute] = []
        switch change.kind {
        case .began: break
        case .goesOn: status = .interim
        case .ended(let cause):
            status = .stop
            rest = [RADIUSAttribute(Kind.terminateCause, number: Self.number(of: cause))]
        }
        if status != .start { rest.insert(RADIUSAttribute(Kind.sessionTime, number: UInt32(clamping: change.seconds)), at: 0) }
        if let source = change.source { rest.append(RADIUSAttribute(Kind.tunnelClient, text: "\(source.address)")) }
        var user = "\(lease.origin)"
        if case .token(let id) = lease.origin { user = "\(id)" }
        self =
            [
                RADIUSAttribute(Kind.accountingStatus, number: status.rawValue), RADIUSAttribute(Kind.sessionID, text: change.session),
                RADIUSAttribute(Kind.userName, text: user), RADIUSAttribute(Kind.nasIdentifier, text: identifier),
                RADIUSAttribute(Kind.portType, number: RADIUSAttribute.virtualPort),
                RADIUSAttribute(Kind.callingStation, text: "\(TokenID(rawValue: lease.key.id))"), RADIUSAttribute(framed: lease.prefix),
                RADIUSAttribute(Kind.eventTimestamp, number: UInt32(truncatingIfNeeded: change.at / 1000)),
            ] + rest
    }

    /// Acct-Terminate-Cause (RFC 2866 section 5.10).
    private static func number(of cause: LeaseChange.Cause) -> UInt32 {
        switch cause {
        case .givenBack: 1  // User Request
        case .expired: 5  // Session Timeout
        case .revoked: 6  // Admin Reset
        case .taken: 13  // Port Preempted
        }
    }
}
