import MATCore
import MATSignal

/// Signature checks, off the core's thread.
///
/// ```
///   Bind ──► room? ──► budget of the source ──► under way ─ ... ─ ended ──► what the Bind wanted
///              └ code 7     └ code 7               ▲
///                           an equal one joins ────┘
/// ```
struct SignatureChecks: Sendable {
    private struct Pending: Sendable {
        var check: BindCheck
        var request: BindRequest
        /// When the keys stop being believed that the certificate is checked by.
        var keysUntil: MonotonicTime
    }

    enum OnWanted: Hashable, Sendable {
        case begin(BindTicket)
        /// The same Bind is being checked: a repetition, which the one answer is for as well.
        case joined
        case refused(String)
    }

    private var pending: [BindTicket: Pending] = [:]
    private var bySignature: [Signature: BindTicket] = [:]
    private var lastNumber: UInt64 = 0
    private var max: Int

    init(_ limits: RelayLimits) { max = limits.verificationsPendingMax }

    mutating func reconfigure(_ limits: RelayLimits) { max = limits.verificationsPendingMax }

    var count: Int { pending.count }

    mutating func wanted(_ check: BindCheck, for request: BindRequest, keysUntil: MonotonicTime) -> OnWanted {
        if let ticket = bySignature[check.signature], pending[ticket]?.request == request { return .joined }
        guard pending.count < max else { return .refused("\(pending.count) signature checks are waiting") }
        lastNumber &+= 1
        let ticket = BindTicket(number: lastNumber)
        pending[ticket] = Pending(check: check, request: request, keysUntil: keysUntil)
        bySignature[check.signature] = ticket
        return .begin(ticket)
    }

    /// - Returns: whose check it was; `nil` if there was none.
    mutating func ended(_ ticket: BindTicket) -> (request: BindRequest, keysUntil: MonotonicTime)? {
        guard let ended = pending.removeValue(forKey: ticket) else { return nil }
        if bySignature[ended.check.signature] == ticket { bySignature[ended.check.signature] = nil }
        return (ended.request, ended.keysUntil)
    }
}
