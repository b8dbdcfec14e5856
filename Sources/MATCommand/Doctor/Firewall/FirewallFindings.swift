import MATSignal

/// What passes through the host's own firewall, of all that MAT sends and receives.
struct FirewallQuestion: Hashable, Sendable {
    /// Whose it is: matd, imsd, mat-relay.
    enum Role: Hashable, Sendable {
        /// - Parameter relays: the ports of the relays that it may use.
        case node(homes: [IPAddress], relays: [UInt16])
        case server(port: UInt16)
        case relay(port: UInt16)
    }

    /// What is lost, as the beginning of a sentence.
    var what: String
    var packet: HostFirewall.Packet
    var isOutbound: Bool
    var severity: DoctorFinding.Severity
    /// What that means for people.
    var consequence: String

    /// What a role sends and receives over an interface, in one family.
    static func of(_ role: Role, _ family: AddressFamily, over interface: String) -> [FirewallQuestion] {
        func udp(
            from source: UInt16?, to destination: UInt16?, isOutbound: Bool, isNew: Bool, _ severity: DoctorFinding.Severity, _ what: String,
            _ consequence: String
        ) -> FirewallQuestion {
            let packet = HostFirewall.Packet(
                family: family, networkProtocol: "udp", sourcePort: source.map(Int.init), destinationPort: destination.map(Int.init),
                inInterface: isOutbound ? "" : interface, outInterface: isOutbound ? interface : "", state: isNew ? "new" : "established")
            return FirewallQuestion(what: what, packet: packet, isOutbound: isOutbound, severity: severity, consequence: consequence)
        }
        func inbound(
            _ port: UInt16, from source: UInt16? = nil, isNew: Bool, _ severity: DoctorFinding.Severity, _ what: String, _ consequence: String
        )
            -> FirewallQuestion
        { udp(from: source, to: port, isOutbound: false, isNew: isNew, severity, what, consequence) }
        func outbound(from port: UInt16, to: UInt16?, isNew: Bool = true, _ severity: DoctorFinding.Severity, _ what: String, _ consequence: String)
            -> FirewallQuestion
        { udp(from: port, to: to, isOutbound: true, isNew: isNew, severity, what, consequence) }
        let (node, ims) = (SignalPort.node, SignalPort.ims)
        switch role {
        case .node(let homes, let relays):
            return [
                inbound(node, from: ims, isNew: false, .problem, "answers to UDP port \(node)", "neither mapping servers nor peers are heard"),
                inbound(
                    node, isNew: true, .warning, "what comes to UDP port \(node) unasked",
                    "peers reach this node only where it has sent to before, as if behind a firewall of the network"),
                outbound(from: node, to: ims, .problem, "UDP from port \(node) to mapping servers (port \(ims))", "this node can't register"),
                outbound(from: node, to: node, .problem, "UDP from port \(node) to peers (port \(node))", "peers do not hear where this node is"),
            ]
                + relays.map { relay in
                    outbound(
                        from: node, to: relay, .warning, "UDP from port \(node) to relays (port \(relay))",
                        relays.count == 1 ? "no relay can be used" : "relays at that port can't be used")
                } + homes.filter { $0.family == family }.flatMap { packets(of: $0, over: interface) }
        case .server(let port):
            return [
                inbound(port, isNew: true, .problem, "what nodes send to UDP port \(port)", "no node can register or look anything up"),
                outbound(from: port, to: node, isNew: false, .problem, "answers from UDP port \(port)", "no node can register or look anything up"),
                outbound(from: port, to: node, .warning, "UDP from port \(port) to nodes (port \(node))", "nobody is told when a node moves"),
                outbound(
                    from: port, to: ims, .warning, "UDP from port \(port) to other mapping servers (port \(ims))", "nodes of others can't be verified"
                ),
            ]
        case .relay(let port):
            return [
                inbound(port, isNew: true, .problem, "what nodes send to UDP port \(port)", "no node can bind here, and nothing is forwarded"),
                outbound(from: port, to: nil, isNew: false, .problem, "UDP from port \(port)", "nothing is forwarded"),
            ]
        }
    }

    /// Connections of a home address, where the firewall sees them: before translation outbound, after it inbound.
    private static func packets(of home: IPAddress, over interface: String) -> [FirewallQuestion] {
        let inbound = HostFirewall.Packet(
            family: home.family, networkProtocol: "tcp", destination: home, inInterface: interface, state: "established")
        let outbound = HostFirewall.Packet(family: home.family, networkProtocol: "tcp", source: home, outInterface: interface, state: "established")
        return [
            FirewallQuestion(
                what: "packets to \(home)", packet: inbound, isOutbound: false, severity: .problem,
                consequence: "connections of the home address get no answers"),
            FirewallQuestion(
                what: "packets from \(home)", packet: outbound, isOutbound: true, severity: .problem,
                consequence: "connections of the home address send nothing"),
        ]
    }

    /// Before and after the IMT a packet has other addresses, so those of home addresses are looked at on the inner side alone.
    var hooks: [HostFirewall.Hook] {
        let isOfHome = packet.source != nil || packet.destination != nil
        return isOutbound ? (isOfHome ? [.output] : [.output, .postrouting]) : (isOfHome ? [.input] : [.prerouting, .input])
    }
}

extension DoctorFindings {
    /// - Parameters:
    ///   - interfaces: over which others are reached, with the families that they have.
    ///   - gaps: what could not be looked at.
    static func firewall(
        _ firewall: HostFirewall, gaps: [String], roles: [FirewallQuestion.Role], interfaces: [HostFacts.Interface], isRoot: Bool
    ) -> [DoctorFinding] {
        guard isRoot else {
            return [
                DoctorFinding(.note, "firewall", "the rules of this host's firewall are for root alone to see", remedy: "run `mat doctor` as root")
            ]
        }
        var found: [(question: FirewallQuestion, place: HostFirewall.Place, interfaces: [String])] = []
        for role in roles {
            for interface in interfaces {
                for family in AddressFamily.allCases where interface.addresses.contains(where: { $0.family == family }) {
                    for question in FirewallQuestion.of(role, family, over: interface.name) {
                        guard let place = firewall.drop(of: question.packet, at: question.hooks) else { continue }
                        if let index = found.firstIndex(where: { $0.question.what == question.what && $0.place == place }) {
                            if !found[index].interfaces.contains(interface.name) { found[index].interfaces.append(interface.name) }
                        } else {
                            found.append((question, place, [interface.name]))
                        }
                    }
                }
            }
        }
        // Who loses all that comes need not be told of what comes unasked.
        let lost = found.filter { $0.question.severity == .problem }
        found.removeAll { entry in
            entry.question.severity == .warning && !entry.question.isOutbound
                && lost.contains { $0.question.packet.destinationPort == entry.question.packet.destinationPort && $0.place == entry.place }
        }
        var findings = found.map { finding($0.question, $0.place, $0.interfaces, managers: firewall.managers) }
        findings += gaps.map { DoctorFinding(.note, "firewall", "not looked at: \($0)") }
        if found.isEmpty, gaps.isEmpty {
            let names = firewall.managers.isEmpty ? "" : " (\(firewall.managers.joined(separator: ", ")))"
            findings.append(
                DoctorFinding(
                    .ok, "firewall",
                    firewall.isEmpty ? "this host has no rules that drop packets" : "this host's rules\(names) let pass what MAT sends and receives"))
        }
        return findings
    }

    private static func finding(_ question: FirewallQuestion, _ place: HostFirewall.Place, _ interfaces: [String], managers: [String])
        -> DoctorFinding
    {
        let chain = "table \(place.table.family) \(place.table.name), chain \(place.chain)"
        let by =
            place.text == "policy drop"
            ? "the policy of \(place.table.tool.rawValue) (\(chain))" : "`\(place.text)` (\(place.table.tool.rawValue), \(chain))"
        let doubt = place.isCertain ? "" : ", unless an earlier rule whose conditions can't be judged here accepts it"
        let severity = place.isCertain ? question.severity : .warning
        return DoctorFinding(
            severity, "firewall",
            "\(question.what) over \(interfaces.joined(separator: ", ")) \(question.what.hasPrefix("packets") || question.what.hasPrefix("answers") ? "are" : "is") dropped by \(by)\(doubt): \(question.consequence)",
            remedy: remedy(question, place, managers))
    }

    private static func remedy(_ question: FirewallQuestion, _ place: HostFirewall.Place, _ managers: [String]) -> String {
        let packet = question.packet
        if let port = packet.destinationPort, !question.isOutbound, packet.networkProtocol == "udp" {
            if managers.contains("firewalld"), place.table.name.hasPrefix("firewalld") {
                return "`firewall-cmd --permanent --add-port=\(port)/udp && firewall-cmd --reload`"
            }
            if managers.contains("ufw") { return "`ufw allow \(port)/udp`" }
        }
        if question.isOutbound, managers.contains("ufw"), let port = packet.sourcePort { return "`ufw allow out from any port \(port) proto udp`" }
        switch place.table.tool {
        case .nftables:
            return
                "`nft insert rule \(place.table.family) \(place.table.name) \(place.chain) \(expression(packet)) accept`, and the same in the file that it is loaded from (/etc/nftables.conf)"
        case .iptables, .iptablesLegacy:
            let program = (packet.family == .ipv4 ? "iptables" : "ip6tables") + (place.table.tool == .iptablesLegacy ? "-legacy" : "")
            return
                "`\(program)\(place.table.name == "filter" ? "" : " -t \(place.table.name)") -I \(place.chain) \(options(packet)) -j ACCEPT`, and the same where these rules are kept (/etc/iptables)"
        }
    }

    private static func expression(_ packet: HostFirewall.Packet) -> String {
        let family = packet.family == .ipv4 ? "ip" : "ip6"
        if let source = packet.source { return "\(family) saddr \(source)" }
        if let destination = packet.destination { return "\(family) daddr \(destination)" }
        if packet.outInterface.isEmpty, let port = packet.destinationPort { return "udp dport \(port)" }
        return packet.sourcePort.map { "udp sport \($0)" } ?? ""
    }

    private static func options(_ packet: HostFirewall.Packet) -> String {
        if let source = packet.source { return "-s \(source)" }
        if let destination = packet.destination { return "-d \(destination)" }
        if packet.outInterface.isEmpty, let port = packet.destinationPort { return "-p udp --dport \(port)" }
        return packet.sourcePort.map { "-p udp --sport \($0)" } ?? ""
    }
}
