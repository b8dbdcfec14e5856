import CNetfilter
import IMTPlan
import MATSignal

// Routes and rules as rtnetlink has them.
extension KernelRoute {
    /// rtmsg: family, destination length, source length, TOS, table, protocol, scope, type: an octet each; flags 4.
    static let headerBytes = 12

    func encode(into message: NetlinkMessage) {
        let scope = kind == .unicast && gateway == nil && family == .ipv4 ? KernelValues.scopeLink : KernelValues.scopeUniverse
        // The gateway was reachable when the main table learnt it; our tables lack the connected route that would prove it again.
        let flags: UInt32 = gateway == nil ? 0 : KernelValues.nextHopOnLink
        message.putHeader(
            [
                KernelValues.family(family), destination.familyLength, 0, 0, table < 256 ? UInt8(table) : 0,
                KernelValues.protocolMAT, scope, kind.rawValue,
            ] + nativeOctets(flags))
        if destination.familyLength > 0 { message.put(KernelValues.rtmDestination, address: destination.address) }
        message.put(KernelValues.rtmTable, u32: table)
        message.put(KernelValues.rtmPriority, u32: priority)
        if let gateway {
            if gateway.family == family {
                message.put(KernelValues.rtmGateway, address: gateway)
            } else {
                // RTA_VIA: an IPv4 route over an IPv6 next hop (RFC 8950).
                message.put(
                    KernelValues.rtmVia,
                    octets: nativeOctets(UInt16(KernelValues.family(gateway.family))) + gateway.packetOctets)
            }
        }
        if kind == .unicast, interfaceIndex != 0 { message.put(KernelValues.rtmOutput, u32: interfaceIndex) }
        if let source { message.put(KernelValues.rtmPreferredSource, address: source) }
        if mtu != 0 || segment != 0 {
            message.putNested(KernelValues.rtmMetrics) {
                if mtu != 0 { message.put(KernelValues.metricMTU, u32: mtu) }
                if segment != 0 { message.put(KernelValues.metricSegment, u32: segment) }
            }
        }
    }

    /// Reads RTM_NEWROUTE: one route per next hop.
    /// - Returns: nothing for what this module has no use for (multicast, blackholes, cached exceptions, dead next hops).
    static func decode(_ incoming: NetlinkIncoming) -> [(route: KernelRoute, protocolNumber: UInt8)] {
        let header = incoming.payload
        guard header.count >= headerBytes, let kind = Kind(rawValue: header[7]) else { return [] }
        guard let family = KernelValues.addressFamily(header[0]) else { return [] }
        let flags = header.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
        guard flags & KernelValues.nextHopDead == 0 else { return [] }
        var address = family == .ipv4 ? IPAddress.unspecifiedIPv4 : IPAddress.unspecifiedIPv6
        var route = KernelRoute(table: UInt32(header[4]), destination: everything(family: family), kind: kind)
        route.priority = 0
        var hops: [(UInt32, IPAddress?)] = []
        var expires = false
        for attribute in incoming.attributes(after: headerBytes) {
            switch attribute.type {
            case KernelValues.rtmDestination: address = attribute.address ?? address
            case KernelValues.rtmTable: route.table = attribute.u32 ?? route.table
            case KernelValues.rtmPriority: route.priority = attribute.u32 ?? 0
            case KernelValues.rtmGateway: route.gateway = attribute.address
            case KernelValues.rtmVia: route.gateway = IPAddress(octets: attribute.value.dropFirst(2))
            case KernelValues.rtmOutput: route.interfaceIndex = attribute.u32 ?? 0
            case KernelValues.rtmPreferredSource: route.source = attribute.address
            case KernelValues.rtmMetrics:
                route.mtu = attribute.nested.first(KernelValues.metricMTU)?.u32 ?? 0
                route.segment = attribute.nested.first(KernelValues.metricSegment)?.u32 ?? 0
            case KernelValues.rtmMultipath: hops = decodeHops(attribute.value)
            // ICMPV6_ROUTER_PREF_LOW is 3, HIGH 1; 2 is reserved and counts as medium (RFC 4191 2.1).
            case KernelValues.rtmPreference: route.preference = attribute.u8 == 1 ? 1 : attribute.u8 == 3 ? -1 : 0
            case KernelValues.rtmNextHop: route.nextHop = attribute.u32 ?? 0
            // rta_cacheinfo: clntref, lastuse, expires, …
            case KernelValues.rtmCacheInfo:
                expires = attribute.value.count >= 12 && attribute.value.loadUnaligned(fromByteOffset: 8, as: Int32.self) != 0
            default: break
            }
        }
        // A learnt path MTU expires; a copy of it would not.
        if expires { route.mtu = 0 }
        if kind != .unicast { route.interfaceIndex = 0 }
        if route.interfaceIndex != 0 { route.nextHop = 0 }
        let length = min(header[1], family.addressBits) + family.leadingBits
        route.destination = IPPrefix(covering: address, length: length)
        if hops.isEmpty { return [(route, header[5])] }
        route.nextHop = 0
        return hops.map { hop in
            var single = route
            (single.interfaceIndex, single.gateway) = hop
            return (single, header[5])
        }
    }

    /// The main table's unicast routes in a message; none of another table or kind.
    static func mainRoutes(of incoming: NetlinkIncoming) -> [KernelRoute] {
        let header = incoming.payload
        // A route of a type of service is for packets that ask for it.
        guard header.count >= headerBytes, header[7] == Kind.unicast.rawValue, header[3] == 0,
            header.loadUnaligned(fromByteOffset: 8, as: UInt32.self) & KernelValues.routeCloned == 0
        else { return [] }
        return decode(incoming).map(\.route).filter { $0.table == KernelValues.tableMain }
    }

    /// struct rtnexthop: length 2, flags 1, weight 1, interface index 4; then attributes.
    private static func decodeHops(_ value: UnsafeRawBufferPointer) -> [(UInt32, IPAddress?)] {
        var rest = value
        var hops: [(UInt32, IPAddress?)] = []
        while rest.count >= 8 {
            let length = Int(rest.loadUnaligned(as: UInt16.self))
            guard length >= 8, length <= rest.count else { return hops }
            let attributes = NetlinkAttributes(payload: UnsafeRawBufferPointer(rebasing: rest[8..<length]))
            if UInt32(rest[2]) & KernelValues.nextHopDead == 0 {
                hops.append(
                    (rest.loadUnaligned(fromByteOffset: 4, as: UInt32.self), attributes.first(KernelValues.rtmGateway)?.address))
            }
            rest = UnsafeRawBufferPointer(rebasing: rest[min(rest.count, (length + 3) & ~3)...])
        }
        return hops
    }
}

extension KernelRule {
    /// fib_rule_hdr: family, destination length, source length, TOS, table, 0, 0, action: an octet each; flags 4.
    func encode(into message: NetlinkMessage) {
        let length = source?.familyLength ?? 0
        message.putHeader(
            [
                KernelValues.family(family), 0, length, 0, table < 256 ? UInt8(table) : 0, 0, 0,
                KernelValues.ruleActionTable, 0, 0, 0, 0,
            ])
        message.put(KernelValues.rulePriority, u32: priority)
        message.put(KernelValues.ruleTable, u32: table)
        message.put(KernelValues.ruleProtocol, u8: KernelValues.protocolMAT)
        if let source { message.put(KernelValues.ruleSource, address: source.address) }
        if let mark {
            message.put(KernelValues.ruleMark, u32: mark)
            message.put(KernelValues.ruleMarkMask, u32: .max)
        }
        if fromHere { message.put(KernelValues.ruleInputName, string: "lo") }
    }

    /// - Returns: `nil` for rules that are not ours.
    static func decode(_ incoming: NetlinkIncoming) -> KernelRule? {
        let header = incoming.payload
        guard header.count >= KernelRoute.headerBytes else { return nil }
        guard let family = KernelValues.addressFamily(header[0]) else { return nil }
        var rule = KernelRule(family: family, priority: 0, table: UInt32(header[4]))
        var ours = false
        for attribute in incoming.attributes(after: KernelRoute.headerBytes) {
            switch attribute.type {
            case KernelValues.rulePriority: rule.priority = attribute.u32 ?? 0
            case KernelValues.ruleTable: rule.table = attribute.u32 ?? rule.table
            case KernelValues.ruleSource:
                rule.source = attribute.address.map { IPPrefix(covering: $0, length: min(header[2], family.addressBits) + family.leadingBits) }
            case KernelValues.ruleMark: rule.mark = attribute.u32
            case KernelValues.ruleInputName: rule.fromHere = attribute.string == "lo"
            case KernelValues.ruleProtocol: ours = attribute.u8 == KernelValues.protocolMAT
            default: break
            }
        }
        return ours ? rule : nil
    }
}
