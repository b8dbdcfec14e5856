import Glibc
import IMTPlan
import MATCore
import MATRuntime
import MATSignal

/// Typed requests to rtnetlink.
final class RouteSocket {
    /// Messages sent at once: each is acknowledged, and the answers must fit the receive queue.
    static let messagesPerSendMax = 1024

    private let socket: NetlinkSocket

    /// How often something was written.
    private(set) var transactionsCount = 0
    /// When routes were last written, if they were.
    private(set) var writtenAt: MonotonicTime?
    /// By which the events of our own changes are known.
    var port: UInt32 { socket.port }

    init() throws(KernelError) { socket = try NetlinkSocket(protocol: KernelValues.netlinkRoute, name: "rtnetlink") }

    // MARK: Reading

    func links() throws(KernelError) -> [UInt32: LinkState] {
        var result: [UInt32: LinkState] = [:]
        try socket.dump(
            type: KernelValues.getLink, operation: "list links", header: [UInt8](repeating: 0, count: 16),
            restart: { result = [:] }
        ) { incoming in
            if let link = LinkState.decode(incoming) { result[link.index] = link.state }
        }
        return result
    }

    func addresses() throws(KernelError) -> [AddressState] {
        var result: [AddressState] = []
        try socket.dump(
            type: KernelValues.getAddress, operation: "list addresses", header: [UInt8](repeating: 0, count: 8),
            restart: { result = [] }
        ) { incoming in
            if let state = AddressState.decode(incoming) { result.append(state) }
        }
        return result
    }

    /// All routes that are ours.
    /// - Parameter kind: only such routes; the kernel filters, which matters with a hundred thousand of the other kind.
    func routes(family: AddressFamily, kind: KernelRoute.Kind? = nil) throws(KernelError) -> [KernelRoute] {
        var result: [KernelRoute] = []
        try socket.dump(
            type: KernelValues.getRoute, operation: "list routes",
            header: [KernelValues.family(family), 0, 0, 0, 0, KernelValues.protocolMAT, 0, kind?.rawValue ?? 0, 0, 0, 0, 0],
            restart: { result = [] }
        ) { incoming in
            let flags = incoming.payload.count >= 12 ? incoming.payload.loadUnaligned(fromByteOffset: 8, as: UInt32.self) : 0
            guard flags & KernelValues.routeCloned == 0 else { return }
            for (route, protocolNumber) in KernelRoute.decode(incoming) {
                // Kernels that do not filter send everything.
                guard protocolNumber == KernelValues.protocolMAT, kind.map({ $0 == route.kind }) ?? true else { continue }
                result.append(route)
            }
        }
        return result
    }

    /// The main table, of both families. The kernel filters by table, so that other tables cost nothing.
    func mainTable() throws(KernelError) -> MainTable {
        var result = MainTable()
        var unresolved: [KernelRoute] = []
        for family in AddressFamily.allCases {
            let before = (result, unresolved)
            try socket.dump(
                type: KernelValues.getRoute, operation: "list routes",
                header: [KernelValues.family(family), 0, 0, 0, 0, 0, 0, KernelValues.routeUnicast, 0, 0, 0, 0],
                attributes: { $0.put(KernelValues.rtmTable, u32: KernelValues.tableMain) }, restart: { (result, unresolved) = before }
            ) { incoming in
                for route in KernelRoute.mainRoutes(of: incoming) {
                    if route.interfaceIndex == 0, route.nextHop != 0 { unresolved.append(route) } else { result.insert(route) }
                }
            }
        }
        guard !unresolved.isEmpty else { return result }
        let hops = try nextHops()
        for route in unresolved {
            for hop in hops[route.nextHop] ?? [] {
                var single = route
                (single.interfaceIndex, single.gateway, single.nextHop) = (hop.interfaceIndex, hop.gateway, 0)
                result.insert(single)
            }
        }
        return result
    }

    /// The nexthop objects: by number, where they lead, those of a group one by one.
    private func nextHops() throws(KernelError) -> [UInt32: [(interfaceIndex: UInt32, gateway: IPAddress?)]] {
        var single: [UInt32: (interfaceIndex: UInt32, gateway: IPAddress?)] = [:]
        var groups: [UInt32: [UInt32]] = [:]
        // nhmsg: family 1, scope 1, protocol 1, reserved 1, flags 4.
        try socket.dump(
            type: KernelValues.getNextHop, operation: "list nexthop objects", header: [UInt8](repeating: 0, count: 8),
            restart: { (single, groups) = ([:], [:]) }
        ) { incoming in
            guard incoming.payload.count >= 8, incoming.payload.loadUnaligned(fromByteOffset: 4, as: UInt32.self) & KernelValues.nextHopDead == 0
            else { return }
            let attributes = incoming.attributes(after: 8)
            guard let number = attributes.first(KernelValues.nextHopID)?.u32 else { return }
            if let group = attributes.first(KernelValues.nextHopGroup)?.value {
                // struct nexthop_grp: id 4, weight 1, 3 reserved.
                groups[number] = stride(from: 0, to: group.count - 7, by: 8).map { group.loadUnaligned(fromByteOffset: $0, as: UInt32.self) }
            } else if let index = attributes.first(KernelValues.nextHopOutput)?.u32 {
                single[number] = (index, attributes.first(KernelValues.nextHopGateway)?.address)
            }
        }
        return single.mapValues { [$0] }.merging(groups.mapValues { members in members.compactMap { single[$0] } }) { $1 }
    }

    /// The neighbours' states, as far as they are next hops of interest.
    func neighbours(among routers: Set<Router>) throws(KernelError) -> [Router: UInt16] {
        routers.isEmpty ? [:] : try neighbours { router, _ in routers.contains(router) }
    }

    private func neighbours(_ isWanted: (Router, UInt16) -> Bool) throws(KernelError) -> [Router: UInt16] {
        var result: [Router: UInt16] = [:]
        try socket.dump(
            type: KernelValues.getNeighbour, operation: "list neighbours", header: [UInt8](repeating: 0, count: Neighbour.headerBytes),
            restart: { result = [:] }
        ) { incoming in
            if let (router, state) = Neighbour.decode(incoming), isWanted(router, state) { result[router] = state }
        }
        return result
    }

    /// Has the kernel find out whether routers answer, as a packet to them would: those that it takes to be there (`confirm`) by asking
    /// them again, others by resolving their addresses. Whatever comes of it is told as a notification.
    func probe(_ routers: [Router], confirm: Bool) throws(KernelError) {
        guard !routers.isEmpty else { return }
        var request = socket.writer()
        for router in routers {
            let flags = KernelValues.flagAck | (confirm ? KernelValues.flagReplace : KernelValues.flagCreate)
            request.append(type: KernelValues.newNeighbour, flags: flags) { message in
                let state = confirm ? KernelValues.neighbourProbe : 0
                message.putHeader(Neighbour.header(router, state: state, flags: confirm ? 0 : KernelValues.neighbourUse))
                message.put(KernelValues.neighbourDestination, address: router.address)
            }
        }
        // Refused where there is nothing to confirm, which is no matter.
        _ = try socket.exchange(request, operation: "probe routers")
    }

    /// Drops the packets that wait on these links for a neighbour's address, without a word to their senders, and forgets that it was asked for.
    func forgetUnresolved(on links: Set<LinkFamily>) throws(KernelError) {
        let routers = try neighbours { router, state in
            state & KernelValues.neighbourIncomplete != 0 && links.contains(LinkFamily(index: router.interfaceIndex, family: router.address.family))
        }.keys
        guard !routers.isEmpty else { return }
        var request = socket.writer()
        for router in routers.prefix(Self.messagesPerSendMax / 2) {
            // To forget it alone would tell the packets' senders that the host is unreachable, which ends connections that are just beginning. With an
            // address that is nobody's they go out, on a link that takes nothing any more.
            request.append(type: KernelValues.newNeighbour, flags: KernelValues.flagAck | KernelValues.flagReplace) { message in
                message.putHeader(Neighbour.header(router, state: KernelValues.neighbourStale))
                message.put(KernelValues.neighbourDestination, address: router.address)
                message.put(KernelValues.neighbourLinkAddress, octets: [2, 0, 0, 0, 0, 0])
            }
            request.append(type: KernelValues.deleteNeighbour, flags: KernelValues.flagAck) { message in
                message.putHeader(Neighbour.header(router, state: 0))
                message.put(KernelValues.neighbourDestination, address: router.address)
            }
        }
        // Refused where it is gone already.
        _ = try socket.exchange(request, operation: "forget neighbours")
    }

    /// Where the kernel would send a packet, as `ip route get` asks.
    func lookUp(_ destination: IPAddress, from source: IPAddress?, mark: UInt32, names: [UInt32: String]) throws(KernelError) -> TracedRoute {
        var request = socket.writer()
        request.append(type: KernelValues.getRoute, flags: 0) { message in
            let bits = destination.family.addressBits
            message.putHeader(
                [KernelValues.family(destination.family), bits, source == nil ? 0 : bits, 0, 0, 0, 0, 0]
                    // IPv6 says the table in any case, and refuses to be asked.
                    + nativeOctets(destination.isIPv4 ? KernelValues.routeLookupTable : 0))
            message.put(KernelValues.rtmDestination, address: destination)
            if let source { message.put(KernelValues.rtmSource, address: source) }
            if mark != 0 { message.put(KernelValues.rtmMark, u32: mark) }
        }
        var result = TracedRoute()
        let refusals = try socket.exchange(request, operation: "look up the route to \(destination)") { incoming in
            guard let route = KernelRoute.decode(incoming).first?.route else { return }
            result.table = route.table
            result.gateway = route.gateway
            result.interface = names[route.interfaceIndex] ?? (route.interfaceIndex == 0 ? nil : "link \(route.interfaceIndex)")
            if route.kind != .unicast { result.failure = "\(route.kind)" }
        }
        if let refusal = refusals.first(where: { $0.errno != 0 }) { result.failure = String(cString: strerror(refusal.errno)) }
        return result
    }

    func foreignRules() throws(KernelError) -> [ForeignRule] { try rules(ForeignRule.decode) }
    func rules() throws(KernelError) -> Set<KernelRule> { Set(try rules(KernelRule.decode)) }

    private func rules<Rule>(_ decode: (NetlinkIncoming) -> Rule?) throws(KernelError) -> [Rule] {
        var result: [Rule] = []
        for family in AddressFamily.allCases {
            let before = result
            try socket.dump(
                type: KernelValues.getRule, operation: "list routing rules",
                header: [KernelValues.family(family)] + [UInt8](repeating: 0, count: 11), restart: { result = before }
            ) { if let rule = decode($0) { result.append(rule) } }
        }
        return result
    }

    // MARK: Writing

    /// Makes all changes, each for itself.
    /// - Returns: those refused, with the reason.
    func apply(_ changes: [RoutingChange]) throws(KernelError) -> [(change: RoutingChange, error: KernelError)] {
        var refused: [(RoutingChange, KernelError)] = []
        var rest = changes[...]
        defer { if !changes.isEmpty { writtenAt = SystemClock.now().monotonic } }
        while !rest.isEmpty {
            transactionsCount += 1
            let part = Array(rest.prefix(Self.messagesPerSendMax))
            rest = rest.dropFirst(part.count)
            var request = socket.writer()
            let first = request.firstSequence
            for change in part { Self.append(change, to: &request) }
            for answer in try socket.exchange(request, operation: "change routes") where answer.errno != 0 {
                let index = Int(answer.sequence &- first)
                guard part.indices.contains(index), answer.errno != part[index].harmless else { continue }
                // A deleted route's device may be gone as well.
                if case .deleteRoute = part[index], answer.errno == ENODEV || answer.errno == EINVAL { continue }
                refused.append(
                    (
                        part[index],
                        KernelError(
                            KernelError.code(of: answer.errno), operation: "change routes", object: part[index].description,
                            errno: answer.errno, sequence: answer.sequence, kernelMessage: answer.message)
                    ))
            }
        }
        return refused
    }

    static func append(_ change: RoutingChange, to request: inout NetlinkWriter) {
        let ack = KernelValues.flagAck
        switch change {
        case .setRoute(let route):
            request.append(type: KernelValues.newRoute, flags: ack | KernelValues.flagCreate | KernelValues.flagReplace) {
                route.encode(into: $0)
            }
        case .deleteRoute(let route):
            request.append(type: KernelValues.deleteRoute, flags: ack) { route.encode(into: $0) }
        case .addRule(let rule):
            request.append(type: KernelValues.newRule, flags: ack | KernelValues.flagCreate | KernelValues.flagExclusive) {
                rule.encode(into: $0)
            }
        case .deleteRule(let rule):
            request.append(type: KernelValues.deleteRule, flags: ack) { rule.encode(into: $0) }
        case .addAddress(let address, let index):
            request.append(type: KernelValues.newAddress, flags: ack | KernelValues.flagCreate | KernelValues.flagReplace) {
                encode(address, index, into: $0)
            }
        case .deleteAddress(let address, let index):
            request.append(type: KernelValues.deleteAddress, flags: ack) { encode(address, index, into: $0) }
        }
    }

    /// A host address that brings no route and waits for no duplicate: nobody shares the device.
    private static func encode(_ address: IPAddress, _ index: UInt32, into message: NetlinkMessage) {
        message.putHeader([KernelValues.family(address.family), address.family.addressBits, 0, 0] + nativeOctets(index))
        message.put(KernelValues.addressLocal, address: address)
        message.put(KernelValues.addressAddress, address: address)
        message.put(KernelValues.addressFlags, u32: KernelValues.addressNoDAD | KernelValues.addressNoPrefixRoute)
    }

    /// Brings the device up and keeps the kernel from putting addresses of its own on it.
    ///
    /// Reverse path: packets released to the stack arrive here from sources that are routed elsewhere. The kernel takes the
    /// higher of the host's setting and the device's, and loose (2) is more than strict (1), so loose here always holds.
    func configureDevice(index: UInt32, name: String) throws(KernelError) {
        // Each is wanted but not vital: a kernel without IPv6 refuses the second.
        try? setReversePath(2, index: index, name: name)
        _ = try changeLink(index, name) { message in
            message.putNested(KernelValues.linkFamilySpecific) {
                message.putNested(UInt16(KernelValues.familyIPv6)) {
                    message.put(KernelValues.linkInet6AddressGeneration, u8: 1)  // IN6_ADDR_GEN_MODE_NONE
                }
            }
        }
        try setLink(index, name, "bring up the device", up: true) { _ in }
    }

    /// The kernel gives each link with IPv6 a route for IPv6's multicast, in the table that is asked first. Of several links the one that had its route first is
    /// taken by programs that name none: ours, if it is older than the network, and nobody is there.
    func deleteMulticastRoute(_ index: UInt32, _ name: String) throws(KernelError) {
        var request = socket.writer()
        request.append(type: KernelValues.deleteRoute, flags: KernelValues.flagAck) { message in
            message.putHeader(
                [KernelValues.familyIPv6, 8, 0, 0, UInt8(KernelValues.tableLocal), 0, 0, KernelValues.routeMulticast] + nativeOctets(UInt32(0)))
            message.put(KernelValues.rtmDestination, address: IPAddress(high: 0xFF00 << 48, low: 0))
            message.put(KernelValues.rtmOutput, u32: index)
        }
        // Without IPv6 there is none.
        _ = try socket.exchange(request, operation: "take the multicast route from \(name)")
    }

    /// Sets a link's `rp_filter`: 0 off, 1 strict, 2 loose.
    func setReversePath(_ value: UInt8, index: UInt32, name: String) throws(KernelError) {
        try setLink(index, name, "set the reverse path filter") { message in
            message.putNested(KernelValues.linkFamilySpecific) {
                message.putNested(UInt16(KernelValues.familyIPv4)) {
                    message.putNested(KernelValues.linkInetConfiguration) {
                        message.put(KernelValues.configurationReversePath, u32: UInt32(value))
                    }
                }
            }
        }
    }

    func setMTU(_ mtu: UInt32, index: UInt32, name: String) throws(KernelError) {
        try setLink(index, name, "set the device's MTU to \(mtu)") { $0.put(KernelValues.linkMTU, u32: mtu) }
    }

    private func setLink(
        _ index: UInt32, _ name: String, _ operation: String, up: Bool = false, _ specific: (NetlinkMessage) -> Void
    ) throws(KernelError) {
        guard let failure = try changeLink(index, name, up: up, specific) else { return }
        throw KernelError(
            KernelError.code(of: failure.errno), operation: operation, object: name, errno: failure.errno, sequence: failure.sequence,
            kernelMessage: failure.message)
    }

    private func changeLink(
        _ index: UInt32, _ name: String, up: Bool = false, _ specific: (NetlinkMessage) -> Void
    ) throws(KernelError) -> NetlinkFailure? {
        var request = socket.writer()
        request.append(type: KernelValues.newLink, flags: KernelValues.flagAck) { message in
            let flags = up ? KernelValues.flagUp : 0
            message.putHeader([0, 0, 0, 0] + nativeOctets(index) + nativeOctets(flags) + nativeOctets(flags))
            specific(message)
        }
        return try socket.exchange(request, operation: "configure \(name)").first { $0.errno != 0 }
    }
}

extension RoutingChange {
    /// What is already so: a route that the kernel itself has withdrawn with its link, a rule that is there.
    var harmless: Int32 {
        switch self {
        case .deleteRoute: ESRCH
        case .deleteRule: ENOENT
        case .deleteAddress: EADDRNOTAVAIL
        case .addRule, .addAddress: EEXIST
        case .setRoute: 0
        }
    }
}
