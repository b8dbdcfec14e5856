import IMTPlan
import MATCore
import MATSignal

// What the agent makes of a packet that is held, from its octets and what the kernel's rules said of it.
extension HeldPacket {
    /// DNS, and DNS over TLS or QUIC.
    private static let namePorts: Set<UInt16> = [53, 853]

    /// Whether it is a question to a DNS server, as far as its port tells.
    var isName: Bool { (protocolNumber == 6 || protocolNumber == 17) && destinationPort.map(Self.namePorts.contains) ?? false }

    /// Whether a TCP connection begins with it.
    var beginsConnection: Bool { protocolNumber == 6 && opensConnection }

    /// Whether it belongs to a TCP connection or a conversation over UDP that exists somewhere. The rules hold what finds no socket here, so the
    /// stack would end it, by a reset or port unreachable. A later fragment, without ports, is answered by nobody.
    var isSegment: Bool {
        let isAnswered = protocolNumber == 6 || protocolNumber == 17 && destinationPort != nil
        return isAnswered && !opensConnection
    }
}
