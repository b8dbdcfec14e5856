import MATSignal

/// What the admission gate has no time for: each sender of a notify or a Join is told to come later. Nothing is kept of it, and nothing else happens.
package enum PutOff {
    /// When to come again.
    package static let seconds: UInt32 = 1

    /// - Parameter cookie: a fresh one for the source.
    /// - Returns: `nil` for what is not put off.
    static func answer(to message: SignalMessage, _ cookie: Cookie) -> SignalMessage? {
        switch message.body {
        case .haNotify(let notify):
            SignalMessage(
                sequence: message.sequence,
                .haNotifyAck(HANotifyAck(code: .tryLater, cookie: cookie, hoa: notify.hoa, lifetime: seconds)))
        case .maNotify(let notify):
            SignalMessage(
                sequence: message.sequence,
                .maNotifyAck(
                    MANotifyAck(code: .tryLater, cookie: cookie, hoa: notify.record.mapping.record.hoa, lifetime: seconds)))
        case .join: SignalMessage(sequence: message.sequence, .joinReply(JoinReply(code: .tryLater, cookie: cookie, lifetime: seconds)))
        default: nil
        }
    }
}
