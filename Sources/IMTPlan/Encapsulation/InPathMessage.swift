import MATSignal

/// Signalling that travels inside an encapsulated packet, from HoA port 6289 to HoA port 6289 (protocol.md section 11, "in-path"): it goes where the
/// packets of applications go, through a relay too, and so shows what becomes of them.
///
///     outer IP | UDP from the own endpoint to the far one | inner IP: HoA to HoA | UDP 6289 to 6289 | message | zero octets up to a wanted size
///
/// It shows that a path carries packets, and proves nothing: whoever can send encapsulated packets under a peer's name can send these as well.
public struct InPathMessage: Hashable, Sendable {
    /// The ends of the packet inside.
    public var pair: HomePair
    /// The ends of the datagram around it.
    public var own: Endpoint
    public var far: Endpoint
    /// What the inner datagram carries.
    public var octets: [UInt8]
    /// The datagram around it leaves without a UDP sum over IPv6, as those of the kernel's programs do.
    public var lacksSum = false

    public init(_ octets: [UInt8], between pair: HomePair, from own: Endpoint, to far: Endpoint) {
        self.octets = octets
        self.pair = pair
        self.own = own
        self.far = far
    }

    /// Octets of the headers between the inner packet's start and the message.
    public static func headerOctets(_ family: AddressFamily) -> Int { (family == .ipv4 ? 20 : 40) + udpOctets }

    private static let udpOctets = 8
    private static let udp: UInt8 = 17
    private static let hops: UInt8 = 64

    // MARK: Out

    /// The packet inside the datagram, with its sums; `nil` if it would be larger than a packet can be, or has no family.
    package var packet: [UInt8]? {
        let isIPv4 = pair.own.isIPv4
        let header = isIPv4 ? 20 : 40
        let count = header + Self.udpOctets + octets.count
        guard count <= Int(UInt16.max), pair.own.family == pair.peer.family else { return nil }
        let length = UInt16(truncatingIfNeeded: Self.udpOctets + octets.count)
        return [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            let packet = UnsafeMutableRawBufferPointer(buffer)
            packet.initializeMemory(as: UInt8.self, repeating: 0)
            if isIPv4 {
                packet[0] = 0x45
                packet.put(UInt16(truncatingIfNeeded: count), at: 2)
                // Don't fragment.
                packet.put(0x4000 as UInt16, at: 6)
                (packet[8], packet[9]) = (Self.hops, Self.udp)
            } else {
                packet[0] = 0x60
                packet.put(length, at: 4)
                (packet[6], packet[7]) = (Self.udp, Self.hops)
            }
            let addresses = pair.own.address.packetOctets + pair.peer.address.packetOctets
            packet.part((isIPv4 ? 12 : 8)..<header).copyBytes(from: addresses)
            if isIPv4 {
                var sum = InternetSum()
                sum.add(UnsafeRawBufferPointer(packet).part(0..<header))
                packet.put(~sum.folded, at: 10)
            }
            packet.put(SignalPort.node, at: header)
            packet.put(SignalPort.node, at: header + 2)
            packet.put(length, at: header + 4)
            packet.part(header + Self.udpOctets..<count).copyBytes(from: octets)
            packet.put(Self.datagramSum(UnsafeRawBufferPointer(packet), header).sent(Self.udp), at: header + 6)
            initialized = count
        }
    }

    // MARK: In

    /// What a packet that was taken out of a datagram is.
    package enum Finding: Equatable {
        /// An application's, or of whoever is behind this node.
        case application
        case message(InPathMessage)
        /// It is for the agent, and damaged or nothing that it knows.
        case damaged
    }

    /// Looks whether a packet of an accepted source is for the agent.
    ///
    /// - Parameters:
    ///   - isForHome: its destination is an own HoA itself. Behind this node others may have signalling of their own at these ports, as nodes that
    ///     visit a mobile network do; theirs is never in the form that only in-path messages have.
    ///   - far: the endpoint that it came from.
    package static func find(in packet: UnsafeRawBufferPointer, _ header: InnerHeader, isForHome: Bool, from far: Endpoint, to own: Endpoint)
        -> Finding
    {
        let start: Int
        switch header.family {
        case .ipv4:
            start = Int(packet[0] & 0xF) * 4
            // Neither of a fragment: only a whole datagram can be read.
            guard packet[9] == udp, packet.number(at: 6) & 0x3FFF == 0 else { return .application }
        case .ipv6:
            start = 40
            guard packet[6] == udp else { return .application }
        }
        guard packet.count >= start + udpOctets, packet.number(at: start) == SignalPort.node, packet.number(at: start + 2) == SignalPort.node else {
            return .application
        }
        let other: Finding = isForHome ? .damaged : .application
        guard Int(packet.number(at: start + 4)) == packet.count - start, hasRightSum(packet, start) else { return other }
        let octets = Array(packet[(start + udpOctets)...])
        let pair = HomePair(own: HomeAddress(header.destination), peer: HomeAddress(header.source))
        guard let first = SignalDatagram.decode(octets, isInPath: true).first, case .message(let message, _) = first, isInPath(message, pair) else {
            return other
        }
        return .message(InPathMessage(octets, between: pair, from: own, to: far))
    }

    /// What comes from outside has a challenge, or the answer to one.
    private static func isInPath(_ message: SignalMessage, _ pair: HomePair) -> Bool {
        switch message.body {
        case .pathProbe(let probe): probe.challenge == nil && probe.hoa == pair.own && probe.peerHoA == pair.peer
        case .pathAnswer(let answer): answer.signature == nil && answer.observed == nil && answer.hoa == pair.peer
        default: false
        }
    }

    private static func hasRightSum(_ packet: UnsafeRawBufferPointer, _ start: Int) -> Bool {
        // Without a sum only in IPv4 (RFC 768, RFC 8200).
        if packet.number(at: start + 6) == 0 { return packet[0] >> 4 == 4 }
        return datagramSum(packet, start).folded == 0xFFFF
    }

    /// Over the pseudo header and the inner datagram, with what stands in the sum's field.
    private static func datagramSum(_ packet: UnsafeRawBufferPointer, _ start: Int) -> InternetSum {
        var sum = InternetSum()
        sum.addPseudoHeader(of: packet, udp, octets: packet.count - start)
        sum.add(packet.part(start..<packet.count))
        return sum
    }
}
