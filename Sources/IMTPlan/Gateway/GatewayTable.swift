import MATSignal

/// What a gateway has the kernel do for HoAs that nobody routes: the packets of each connection get an address of the gateway as source, and
/// connection tracking gives their answers the HoA back (protocol.md section 11.5, "Gateway").
///
///     table ip mat_gateway {
///         chain source_nat {
///             type nat hook postrouting priority srcnat
///             ip saddr 192.0.2.0/24 oifname != "matgw0" masquerade
///         }
///     }
package struct GatewayTable {
    package static let name = "mat_gateway"

    /// The gateway's device.
    package var device: String
    /// Prefixes of HoAs, of either family.
    package var translated: [IPPrefix]

    package init(device: String, translated: [IPPrefix]) {
        self.device = device
        self.translated = translated
    }

    /// The table of a family; without prefixes of this family it has no rules, and should not be there.
    package func definition(_ family: AddressFamily) -> TableDefinition {
        TableDefinition(
            family: family, name: Self.name, sets: [],
            chains: [
                ChainDefinition(
                    name: "source_nat", hook: .init(type: "nat", number: KernelValues.hookPostrouting, priority: 100),
                    rules: prefixes(family).map(rule))
            ])
    }

    package func prefixes(_ family: AddressFamily) -> [IPPrefix] { translated.filter { $0.family == family }.sorted() }

    private func rule(_ prefix: IPPrefix) -> [Expression] {
        let width = prefix.family.addressOctets
        let source = HeaderField(base: .network, offset: prefix.family == .ipv4 ? 12 : 8, length: UInt32(width))
        let mask = IPAddress(high: .max, low: .max).masked(to: prefix.length).octets.suffix(width)
        let partial: [Expression] = prefix.length == 128 ? [] : [.mask(Register(0), Array(mask))]
        let name = Array(device.utf8)
        let interface = name + [UInt8](repeating: 0, count: Swift.max(0, Self.nameOctets - name.count))
        return [.load(source, into: Register(0))] + partial
            + [
                .compare(Register(0), .equal, prefix.address.packetOctets), .meta(.outputName, into: Register(0)),
                .compare(Register(0), .notEqual, interface), .masquerade,
            ]
    }

    /// IFNAMSIZ
    private static let nameOctets = 16

    /// What puts a family's table in place, or takes it away.
    ///
    /// - Parameter isThere: one of an earlier run or configuration is there.
    package func change(_ family: AddressFamily, isThere: Bool) -> TableChange? {
        let definition = definition(family)
        var steps: [TableStep] = isThere ? [.deleteTable] : []
        if !prefixes(family).isEmpty {
            steps.append(.addTable)
            for chain in definition.chains { steps += [.addChain(chain)] + chain.rules.map { .addRule($0, to: chain.name) } }
        }
        return steps.isEmpty ? nil : TableChange(definition, steps)
    }

    /// Likewise of the routes that lead HoAs into the device.
    package static func routes(_ prefixes: [IPPrefix], interfaceIndex: UInt32, present: [KernelRoute]) -> [RoutingChange] {
        let wanted = prefixes.sorted().map { KernelRoute(table: KernelValues.tableMain, destination: $0, interfaceIndex: interfaceIndex) }
        let keys = Set(wanted.map(\.key))
        let stale = present.filter {
            $0.table == KernelValues.tableMain && $0.interfaceIndex == interfaceIndex && !keys.contains($0.key)
        }
        return stale.sorted { $0.destination < $1.destination }.map { .deleteRoute($0) } + wanted.map { .setRoute($0) }
    }
}
