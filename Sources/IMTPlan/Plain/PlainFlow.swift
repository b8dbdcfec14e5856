import MATSignal

/// A flow that this host has with a peer's MoA, untranslated. Ports are an echo's identifier, twice.
package struct PlainFlow: Hashable {
    package var peerHome: HomeAddress
    package var peer: MobileAddress
    package var own: MobileAddress
    package var protocolNumber: UInt8
    package var peerPort: UInt16
    package var ownPort: UInt16
    /// TCP: noted by a SYN or FIN only. If it has a connection, that is found by its socket.
    package var isEdge = false

    package init(
        peerHome: HomeAddress, peer: MobileAddress, own: MobileAddress, protocolNumber: UInt8, peerPort: UInt16, ownPort: UInt16, isEdge: Bool = false
    ) {
        self.peerHome = peerHome
        self.peer = peer
        self.own = own
        self.protocolNumber = protocolNumber
        self.peerPort = peerPort
        self.ownPort = ownPort
        self.isEdge = isEdge
    }
}

extension PlainFlow {
    package init(_ flow: PlainFlow, of peerHome: HomeAddress) {
        self = flow
        self.peerHome = peerHome
    }

    /// An element of `plain_flows`: MoAs, protocol and ports, each in registers of four octets. Its peer has no HoA there.
    package init?(element: [UInt8], family: AddressFamily) {
        let width = family.addressOctets
        guard element.count == 2 * width + 12, let peer = IPAddress(octets: element[0..<width]),
            let own = IPAddress(octets: element[width..<2 * width])
        else { return nil }
        func port(_ offset: Int) -> UInt16 { UInt16(element[2 * width + offset]) << 8 | UInt16(element[2 * width + offset + 1]) }
        self.init(
            peerHome: HomeAddress(peer), peer: MobileAddress(peer), own: MobileAddress(own), protocolNumber: element[2 * width],
            peerPort: port(4), ownPort: port(8), isEdge: true)
    }

    /// As an element of `peer_flows`.
    package var element: SetElement {
        let ports = [peerPort, ownPort].flatMap { [UInt8($0 >> 8), UInt8($0 & 0xFF), 0, 0] }
        return SetElement(
            key: peerHome.address.packetOctets + [protocolNumber, 0, 0, 0] + ports,
            data: peer.address.packetOctets + own.address.packetOctets,
            timeoutMilliseconds: protocolNumber != 6
                ? TranslationRuleset.plainFlowMilliseconds
                : isEdge ? TranslationRuleset.plainEdgeMilliseconds : TranslationRuleset.plainConnectionMilliseconds)
    }
}
