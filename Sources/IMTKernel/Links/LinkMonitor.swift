import MATRuntime
import MATSignal

/// Everything rtnetlink says about where this host is, read as a whole.
struct LinkTables: Equatable {
    var links: [UInt32: LinkState] = [:]
    var addresses: [AddressState] = []
    /// The main table's, both families.
    var mainRoutes: [KernelRoute] = []

    /// - Parameter deviceName: our own device, which is no link.
    func snapshot(without deviceName: String) -> LinkSnapshot {
        var best: [UInt64: KernelRoute] = [:]
        for route in mainRoutes where route.destination.familyLength == 0 {
            let slot = UInt64(route.interfaceIndex) << 1 | (route.isIPv4 ? 1 : 0)
            if let known = best[slot], known.priority <= route.priority { continue }
            best[slot] = route
        }
        var result = LinkSnapshot(gateways: Set(mainRoutes.compactMap(\.gateway)).sorted())
        for state in addresses {
            guard let link = links[state.interfaceIndex], !link.isLoopback, link.name != deviceName else { continue }
            let route = best[UInt64(state.interfaceIndex) << 1 | (state.address.isIPv4 ? 1 : 0)]
            // An optimistic address may be sent from although its duplicates are still being looked for (RFC 4429).
            let tentative = state.flags & KernelValues.addressTentative != 0 && state.flags & KernelValues.addressOptimistic == 0
            result.addresses.append(
                LocalAddress(
                    address: state.address, interface: link.name, interfaceIndex: state.interfaceIndex,
                    prefixLength: state.prefixLength,
                    isTentative: tentative, isDeprecated: state.flags & KernelValues.addressDeprecated != 0,
                    dadFailed: state.flags & KernelValues.addressDADFailed != 0, linkUp: link.isUp, gateway: route?.gateway,
                    hasDefaultRoute: route != nil,
                    isGlobalScope: state.scope <= KernelValues.scopeSite))
        }
        result.addresses.sort { ($0.interfaceIndex, $0.address) < ($1.interfaceIndex, $1.address) }
        return result
    }

    /// Whether a link other than our device (loopback included) carries the address.
    func carries(_ address: IPAddress, otherThan deviceName: String) -> Bool {
        addresses.contains { $0.address == address && links[$0.interfaceIndex].map { $0.name != deviceName } ?? false }
    }
}

/// Hears rtnetlink's events and says "look again", once for a burst: one DHCP lease makes several.
///
/// Events only wake; the state is always read as a whole. So a lost event (ENOBUFS) needs no care beyond looking again.
final class LinkMonitor {
    private let socket: NetlinkSocket
    private let loop: EventLoop
    private let onChange: () -> Void
    private var announced = false

    init(loop: EventLoop, onChange: @escaping () -> Void) throws(KernelError) {
        self.loop = loop
        self.onChange = onChange
        socket = try NetlinkSocket(
            protocol: KernelValues.netlinkRoute, name: "rtnetlink events",
            groups: [
                KernelValues.groupLink, KernelValues.groupIPv4Address, KernelValues.groupIPv4Route, KernelValues.groupIPv6Address,
                KernelValues.groupIPv6Route,
            ])
        do {
            try loop.watch(socket.descriptor) { [unowned self] in readable() }
        } catch {
            throw .system(error.operation, "rtnetlink events", errno: error.errno)
        }
    }

    func stop() { loop.unwatch(socket.descriptor) }

    private func readable() {
        var concerns = false
        do {
            _ = try socket.drain(operation: "receive link events") { if Self.concerns($0) { concerns = true } }
        } catch {
            // Events were lost, or the socket is in a state that reading the whole again gets us out of.
            concerns = true
        }
        guard concerns, !announced else { return }
        announced = true
        loop.schedule(after: .zero) { [weak self] in
            guard let self else { return }
            announced = false
            onChange()
        }
    }

    /// Routes of other tables than main are none of our business; our own are among them.
    private static func concerns(_ incoming: NetlinkIncoming) -> Bool {
        switch incoming.type {
        case KernelValues.newRoute, KernelValues.deleteRoute:
            guard incoming.payload.count >= KernelRoute.headerBytes else { return false }
            let table = incoming.attributes(after: KernelRoute.headerBytes).first(KernelValues.rtmTable)?.u32
            return (table ?? UInt32(incoming.payload[4])) == KernelValues.tableMain
        case KernelValues.newLink, KernelValues.deleteLink, KernelValues.newAddress, KernelValues.deleteAddress: return true
        default: return false
        }
    }
}
