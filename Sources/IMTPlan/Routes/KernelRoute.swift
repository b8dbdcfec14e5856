import MATSignal

/// A route, as far as this module reads and writes them.
package struct KernelRoute: Hashable {
    package enum Kind: UInt8 {
        case unicast = 1
        /// What comes so far goes nowhere.
        case unreachable = 7
        case throwing = 9
    }

    package var table: UInt32
    package var destination: IPPrefix
    package var kind: Kind = .unicast
    package var gateway: IPAddress?
    /// 0: none.
    package var interfaceIndex: UInt32 = 0
    /// The source address that new conversations get ("src" in `ip route`).
    package var source: IPAddress?
    /// 0: the device's.
    package var mtu: UInt32 = 0
    /// The largest TCP segment that new connections ask the other end for, in octets of data; 0: what fits the MTU.
    package var segment: UInt32 = 0
    package var priority: UInt32 = KernelRoute.ownPriority
    /// What the router says of itself (RFC 4191): 1 high, 0 medium, -1 low. Only read, never written.
    package var preference: Int8 = 0
    /// The nexthop object that says where it goes, where the kernel tells only that (net.ipv4.nexthop_compat_mode=0); 0: none.
    package var nextHop: UInt32 = 0

    package init(
        table: UInt32, destination: IPPrefix, kind: Kind = .unicast, gateway: IPAddress? = nil, interfaceIndex: UInt32 = 0, source: IPAddress? = nil,
        mtu: UInt32 = 0, segment: UInt32 = 0, priority: UInt32 = KernelRoute.ownPriority, preference: Int8 = 0, nextHop: UInt32 = 0
    ) {
        self.table = table
        self.destination = destination
        self.kind = kind
        self.gateway = gateway
        self.interfaceIndex = interfaceIndex
        self.source = source
        self.mtu = mtu
        self.segment = segment
        self.priority = priority
        self.preference = preference
        self.nextHop = nextHop
    }

    /// IPv6 has no priority 0 (it becomes 1024), so both families use this one.
    package static let ownPriority: UInt32 = 1024

    package var family: AddressFamily { destination.family }

    /// What makes the kernel call two routes the same, so that one replaces the other.
    package struct Key: Hashable {
        package var table: UInt32
        package var destination: IPPrefix
        package var priority: UInt32

        package init(table: UInt32, destination: IPPrefix, priority: UInt32) {
            self.table = table
            self.destination = destination
            self.priority = priority
        }
    }
    package var key: Key { Key(table: table, destination: destination, priority: priority) }

    package static func everything(family: AddressFamily) -> IPPrefix {
        IPPrefix(covering: family == .ipv4 ? .unspecifiedIPv4 : .unspecifiedIPv6, length: family.leadingBits)
    }
}

/// A policy routing rule of ours.
package struct KernelRule: Hashable {
    package var family: AddressFamily
    package var priority: UInt32
    /// Packets from these addresses.
    package var source: IPPrefix?
    /// Packets of sockets with this mark.
    package var mark: UInt32?
    /// Only packets of local sockets, not forwarded ones ("iif lo").
    package var fromHere = false
    package var table: UInt32

    package init(family: AddressFamily, priority: UInt32, source: IPPrefix? = nil, mark: UInt32? = nil, fromHere: Bool = false, table: UInt32) {
        self.family = family
        self.priority = priority
        self.source = source
        self.mark = mark
        self.fromHere = fromHere
        self.table = table
    }
}
