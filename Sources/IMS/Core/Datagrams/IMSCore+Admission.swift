import MATRuntime
import MATSignal

// What the admission gate lets in is an ordinary event; what it puts off is answered here.

extension IMSCore {
    /// A datagram of notifies came for which there is no time now: each sender that receives at its address is told to come later.
    /// Nothing is kept of it, and nothing else happens.
    public mutating func putOff(_ datagram: [UInt8], from source: Endpoint, to local: IPAddress, now: Now) -> [IMSAction] {
        var answers: [SignalMessage] = []
        for case .message(let message, _) in SignalDatagram.decode(datagram) {
            guard cookies.isValid(message.cookie, from: source, now: now) else { continue }
            let cookie = freshCookie(source, message.cookie.client, now)
            switch message.body {
            case .haNotify(let notify):
                answers.append(
                    SignalMessage(
                        sequence: message.sequence,
                        .haNotifyAck(HANotifyAck(code: .tryLater, cookie: cookie, hoa: notify.hoa, lifetime: Self.putOffSeconds))))
            case .maNotify(let notify):
                let hoa = notify.record.mapping.record.hoa
                answers.append(
                    SignalMessage(
                        sequence: message.sequence,
                        .maNotifyAck(MANotifyAck(code: .tryLater, cookie: cookie, hoa: hoa, lifetime: Self.putOffSeconds))))
            default: continue
            }
        }
        counters.putOff += 1
        for answer in answers { count(answer) }
        for packed in SignalDatagram.pack(answers) { actions.append(.send(packed, from: local, to: source)) }
        return takeActions(now)
    }

    static let putOffSeconds: UInt32 = 1
}

extension IMSServer {
    /// A datagram that a worker's gate let in, or put off.
    func take(_ datagram: [UInt8], isPutOff: Bool, _ source: Endpoint, _ local: IPAddress) {
        run { core, now in
            isPutOff
                ? core.putOff(datagram, from: source, to: local, now: now) : core.received(datagram, from: source, to: local, now: now)
        }
    }
}
