import IMSCore
import MATSignal

extension IMSServer {
    /// A datagram that a worker's gate let in, or put off.
    func received(_ datagram: [UInt8], isPutOff: Bool, _ source: Endpoint, _ local: IPAddress) {
        run { core, now in
            isPutOff
                ? core.putOff(datagram, from: source, to: local, now: now) : core.received(datagram, from: source, to: local, now: now)
        }
    }
}
