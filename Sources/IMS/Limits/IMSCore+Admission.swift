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

    /// A datagram that the gate let nobody look at.
    public mutating func noteDroppedAtGate() { counters.droppedAtGate += 1 }
}

extension IMSServer {
    /// A datagram from the socket.
    func take(_ octets: UnsafeRawBufferPointer, _ source: Endpoint, _ local: IPAddress) {
        switch gate.judge(firstOctet: octets.first, source: source.address, at: SystemClock.now().monotonic) {
        case .pass: run { core, now in core.received(Array(octets), from: source, to: local, now: now) }
        case .tryLater: run { core, now in core.putOff(Array(octets), from: source, to: local, now: now) }
        case .drop: core.noteDroppedAtGate()
        }
    }
}
