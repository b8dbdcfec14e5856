import MATCore
import MATSignal

/// A packet between a node and a plain host, as far as a gateway looks at it: who, for whom, and whether it is of UDP between which ports.
///
///     IPv4 header | UDP ...          later fragments have no ports, and without the first nobody puts them together
///     IPv6 header | hop-by-hop | routing | destination options | fragment | UDP ...
package struct PlainPacket: Hashable, Sendable {
    package let source: IPAddress
    package let destination: IPAddress
    /// Of UDP.
    package let ports: Ports?

    package struct Ports: Hashable, Sendable {
        package let source: UInt16
        package let destination: UInt16
    }

    private static let udp: UInt8 = 17
    /// Extension headers of a packet; one with more is no application's.
    private static let extensionsMax = 8

    /// - Returns: `nil` unless it is one whole packet, of one family, whose transport can be found if there is one.
    package init?(_ octets: UnsafeRawBufferPointer) {
        guard let inner = unsafe InnerPacket(octets) else { return nil }
        let view = unsafe OctetView(octets)
        (source, destination) = (inner.source, inner.destination)
        if view.uint8(at: 0) >> 4 == 4 {
            guard view.uint8(at: 9) == Self.udp, view.uint16(at: 6) & 0x1FFF == 0 else {
                ports = nil
                return
            }
            guard let found = Self.ports(view, at: Int(view.uint8(at: 0) & 0x0F) &* 4) else { return nil }
            ports = found
            return
        }
        // Addresses of IPv4 in their 16-octet form: for sockets, not for networks.
        guard !source.isIPv4, !destination.isIPv4, let transport = Self.transport(ofIPv6: view) else { return nil }
        guard transport.number == Self.udp, let place = transport.place else {
            ports = nil
            return
        }
        guard let found = Self.ports(view, at: place) else { return nil }
        ports = found
    }

    private static func ports(_ view: OctetView, at place: Int) -> Ports? {
        guard view.count >= place &+ 8 else { return nil }
        return Ports(source: view.uint16(at: place), destination: view.uint16(at: place &+ 2))
    }

    /// - Returns: the transport's number and where it begins (`nil`: in another fragment); nothing if the extension headers do not end.
    private static func transport(ofIPv6 view: OctetView) -> (number: UInt8, place: Int?)? {
        var (number, place) = (view.uint8(at: 6), 40)
        for _ in 0..<extensionsMax {
            switch number {
            case 0, 43, 60, 135, 139, 140:
                guard view.count >= place &+ 8 else { return nil }
                number = view.uint8(at: place)
                place &+= 8 &+ Int(view.uint8(at: place &+ 1)) &* 8
            case 51:
                guard view.count >= place &+ 8 else { return nil }
                number = view.uint8(at: place)
                place &+= 8 &+ Int(view.uint8(at: place &+ 1)) &* 4
            case 44:
                guard view.count >= place &+ 8 else { return nil }
                number = view.uint8(at: place)
                if view.uint16(at: place &+ 2) & 0xFFF8 != 0 { return (number, nil) }
                place &+= 8
            default: return (number, place)
            }
        }
        return nil
    }
}
