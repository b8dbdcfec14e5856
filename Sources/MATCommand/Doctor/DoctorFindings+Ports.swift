import MATControl
import MATSignal

/// A server or relay that was asked from this host whether it answers at all.
struct PortProbe: Hashable, Sendable {
    var endpoint: Endpoint
    var answered: Bool
}

// Whether the ports that MAT needs are reached from outside. A host can't send to itself from there: what others' packets have shown counts, and of
// other hosts' ports, what this one gets back.

extension DoctorFindings {
    /// The node's own port, as its mapping server's checks and its peers' packets have found it.
    static func port(_ node: NodeReport) -> [DoctorFinding] {
        guard node.homes.contains(where: { $0.state == "registered" }) else { return [] }
        return node.locators.compactMap { locator in
            let place = "\(locator.address) on \(locator.interface)"
            guard let translation = locator.translation else {
                guard locator.state == "sound", node.homes.contains(where: { $0.locators.contains(locator.address) }) else { return nil }
                return DoctorFinding(
                    .ok, "port", "UDP port \(SignalPort.node) of \(place) is reached from outside: the mapping server's checks arrive")
            }
            // What is translated is told of by itself.
            guard translation.seen == nil else { return nil }
            return DoctorFinding(
                .warning, "port",
                "UDP port \(SignalPort.node) of \(place) is not reached from outside: peers that this node has not sent to get through by its mapping server or relays alone",
                remedy:
                    "open UDP port \(SignalPort.node) to this host in the network's firewall, if it is yours; else nothing need be done, packets travel in UDP"
            )
        }
    }

    static func relays(_ probes: [PortProbe]) -> [DoctorFinding] {
        probes.map { probe in
            probe.answered
                ? DoctorFinding(.ok, "relay", "the relay \(probe.endpoint) answers")
                : DoctorFinding(
                    .warning, "relay", "the relay \(probe.endpoint), which the DNS names, does not answer from here",
                    remedy: "see there `systemctl status mat-relay`, and that UDP port \(probe.endpoint.port) is open from outside")
        }
    }

    /// Of the host of a mapping server or relay: whether it is the one that others are sent to, and has heard of them.
    ///
    /// - Parameters:
    ///   - published: the endpoints that the DNS names.
    ///   - own: the addresses of this host.
    static func outside(_ what: String, port: UInt16, published: [Endpoint], own: [IPAddress]) -> [DoctorFinding] {
        let elsewhere = published.filter { !own.contains($0.address) }
        guard !published.isEmpty, elsewhere.count == published.count else { return [] }
        let names = elsewhere.map(\.description).joined(separator: ", ")
        return [
            DoctorFinding(
                .warning, "port", "the DNS sends nodes to \(names), and none of these addresses is this host's",
                remedy:
                    "if this host stands behind a translator, have it forward UDP port \(port) here; else correct the address in the lines of `mat zone`: \(what) is not reached"
            )
        ]
    }

    /// What has come in says whether the port is open from outside.
    static func heard(_ server: IMSStatusReport) -> DoctorFinding {
        let updates = server.counters.received[MessageType.imsUpdate.description] ?? 0
        let time = Quantity.duration(milliseconds: server.uptimeMilliseconds)
        if updates > 0 {
            return DoctorFinding(
                .ok, "port", "UDP port \(server.port) is reached: \(Quantity.count(Int64(clamping: updates), "registration")) came in \(time)")
        }
        let wasUsed = server.mappings > 0 && server.uptimeMilliseconds > 900_000
        return DoctorFinding(
            wasUsed ? .warning : .note, "port",
            "no node has registered in the \(time) since the start: whether UDP port \(server.port) is open from outside has not shown",
            remedy: "`mat lookup ADDRESS` on a host elsewhere asks this server; open the port in the firewall of its network")
    }
}
