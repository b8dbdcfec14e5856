import IMTPlan
import MATSignal

/// A link as far as one family goes over it.
struct LinkFamily: Hashable {
    let index: UInt32
    let family: AddressFamily

    /// Those by which one of these addresses can be used.
    static func of(_ addresses: [LocalAddress]) -> Set<Self> {
        Set(addresses.filter(\.isUsable).map { Self(index: $0.interfaceIndex, family: $0.address.family) })
    }
}

/// What the kernel knows of a neighbour: whether it answers (linux/neighbour.h).
enum Neighbour {
    /// ndmsg: family 1, pad 3, interface index 4, state 2, flags 1, type 1.
    static let headerBytes = 12

    static func header(_ router: Router, state: UInt16, flags: UInt8 = 0) -> [UInt8] {
        [KernelValues.family(router.address.family), 0, 0, 0] + nativeOctets(router.interfaceIndex) + nativeOctets(state) + [flags, 0]
    }

    /// Reads RTM_NEWNEIGH.
    static func decode(_ incoming: NetlinkIncoming) -> (router: Router, state: UInt16)? {
        let header = incoming.payload
        guard header.count >= headerBytes, header[0] == KernelValues.familyIPv4 || header[0] == KernelValues.familyIPv6,
            let address = incoming.attributes(after: headerBytes).first(KernelValues.neighbourDestination)?.address
        else { return nil }
        return (
            Router(interfaceIndex: header.loadUnaligned(fromByteOffset: 4, as: UInt32.self), address: address),
            header.loadUnaligned(fromByteOffset: 8, as: UInt16.self)
        )
    }
}
