import IMTKernel
import MATDNS
import MATRuntime
import MATSignal
import NodeCore

// The control socket's commands: what `mat status`, `mat peers` and `mat handover` ask.

extension NodeService {
    func answer(_ request: ControlRequest) -> ControlResponse {
        switch request.command {
        case "status":
            return .ok(status(SystemClock.now()))
        case "peers":
            return .ok(peers(SystemClock.now()))
        case "handover":
            return handover(request.arguments["interface"]?.string, peer: request.arguments["peer"]?.string)
        default:
            return .failed("matd does not know the command \"\(request.command)\"; are mat and matd of one version?")
        }
    }

    /// Uses the named interface first; without a name, the configured order again. With a peer, towards that peer only.
    private func handover(_ interface: String?, peer: String?) -> ControlResponse {
        if let interface, !core.ownLocators.contains(where: { $0.interface == interface }) {
            let usable = Set(core.ownLocators.map(\.interface)).sorted().joined(separator: ", ")
            return .failed("\(interface) has no usable address; usable now: \(usable.isEmpty ? "none" : usable)")
        }
        if let peer {
            guard let address = IPAddress(peer) else { return .failed("\(peer) is no address") }
            handOver(to: interface, for: HomeAddress(address))
        } else {
            handOver(to: interface)
        }
        return .ok(status(SystemClock.now()))
    }

    private func status(_ now: Now) -> JSONValue {
        let counted = readCounters()
        tell(counted)
        let status = core.status(now: now)
        return .object([
            "uptimeSeconds": .number((now.monotonic - started).components.seconds),
            "registered": .bool(core.isRegistered),
            "homes": .array(status.registrations.map { registration($0) }),
            "locators": .array(zip(status.locators, status.uplinks).map { locator($0, $1) }),
            "unusedAddresses": .array(unusedAddresses.map { unused in
                .object(["address": .text(unused.address), "interface": .string(unused.interface), "reason": .string(unused.reason)])
            }),
            "silentRouters": .array(silentRouters.map { router in
                .object(["address": .text(router.address), "interface": .string(router.interface), "instead": router.instead.map(JSONValue.text) ?? .null])
            }),
            "routingRules": .object([
                "base": .number(rulePlace.base), "passed": .array(rulePlace.passed.map(JSONValue.string)),
                "before": .array(rulePlace.before.map(JSONValue.string)),
            ]),
            "pathsWatched": .number(status.pathsWatched),
            "chosenInterface": status.chosenInterface.map(JSONValue.string) ?? .null,
            "peers": .array(status.peers.map { peer($0, counted) }),
            "peersCount": .number(status.peersCount),
            "resolving": .number(status.resolving),
            "undecided": .object([
                "count": .number(status.undecidedCount), "destinations": .array(status.undecided.map(undecided)),
            ]),
            "dns": dns(now.monotonic),
            "unknownSources": .number(status.strangers),
            "repairs": .number(repairs),
            "lastRepair": lastRepair.map(JSONValue.string) ?? .null,
            "counters": counters(status.counters),
        ])
    }

    private func peers(_ now: Now) -> JSONValue {
        let counted = readCounters()
        tell(counted)
        let status = core.status(now: now)
        return .object(["peers": .array(status.peers.map { peer($0, counted) }), "peersCount": .number(status.peersCount)])
    }

    private func registration(_ home: NodeStatus.Registration) -> JSONValue {
        .object([
            "address": .text(home.hoa),
            "prefix": home.prefix.length == 128 ? .null : .text(home.prefix),
            "locators": .array(home.locators.map(JSONValue.text)),
            "servers": .array(home.servers.map(JSONValue.text)),
            "state": .string(home.phase),
            "ageSeconds": home.age.map { .number($0.components.seconds) } ?? .null,
            "expiresInSeconds": home.expiresIn.map { .number($0.components.seconds) } ?? .null,
            "certificateNotAfter": .number(home.certificateNotAfter / 1000),
            "certificateEndsSoon": .bool(home.certificateEndsSoon),
            "sequence": .number(home.sequence),
            "problem": home.problem.map(JSONValue.string) ?? .null,
        ])
    }

    private func undecided(_ state: NodeStatus.UndecidedState) -> JSONValue {
        .object([
            "address": .text(state.hoa),
            "isPlain": .bool(state.isPlain),
            "reason": .string(state.reason),
            "ageSeconds": .number(state.age.components.seconds),
            "askedSecondsAgo": .number(state.askedAgo.components.seconds),
        ])
    }

    /// Of one server, rather than of all that were asked.
    private static func words(_ failure: DNSFailure) -> String {
        switch failure {
        case .timeout: "no answer"
        case .unreachable: "not reachable"
        default: failure.description
        }
    }

    private func dns(_ now: MonotonicTime) -> JSONValue {
        let servers = names.resolver.configuration.servers.map { server -> JSONValue in
            let state = names.resolver.states[server]
            return .object([
                "address": .string("\(server.endpoint.address)\(server.interface.map { "%\($0)" } ?? "")"),
                "port": .number(server.endpoint.port),
                "isUpstream": .bool(server.isUpstream),
                "answeredSecondsAgo": state?.answered.map { .number((now - $0).components.seconds) } ?? .null,
                "failingSeconds": state?.failingSince.map { .number((now - $0).components.seconds) } ?? .null,
                "failure": state?.failure.map { .string(Self.words($0)) } ?? .null,
            ])
        }
        return .object(["from": .string(names.origin), "servers": .array(servers)])
    }

    private func locator(_ locator: OwnLocator, _ uplink: NodeStatus.UplinkState) -> JSONValue {
        .object([
            "address": .text(locator.moa),
            "interface": .string(locator.interface),
            "state": .string(uplink.state),
            "deprecated": .bool(locator.isDeprecated),
            "reason": uplink.reason.map(JSONValue.string) ?? .null,
            "silentSeconds": uplink.silentFor.map { .number($0.components.seconds) } ?? .null,
            "nextCheckSeconds": uplink.nextCheckIn.map { .number($0.components.seconds) } ?? .null,
            "trustedInSeconds": uplink.trustedIn.map { .number($0.components.seconds) } ?? .null,
            "failures": .number(uplink.failures),
        ])
    }

    private func peer(_ peer: NodeStatus.PeerState, _ counters: [HomePair: PeerCounters]) -> JSONValue {
        let counted = counters[HomePair(own: peer.ownHoA, peer: peer.hoa)] ?? PeerCounters()
        let interface = core.ownLocators.first { $0.moa == peer.ownMoA }?.interface
        return .object([
            "home": .text(peer.hoa),
            "ownHome": .text(peer.ownHoA),
            "locator": peer.moa.map(JSONValue.text) ?? .null,
            "ownLocator": peer.ownMoA.map(JSONValue.text) ?? .null,
            "interface": interface.map(JSONValue.string) ?? .null,
            "locators": .array(peer.locators.map(JSONValue.text)),
            "confirmed": .bool(!peer.isProvisional),
            "proven": .bool(peer.isProven),
            "ageSeconds": .number(peer.age.components.seconds),
            "refreshedSecondsAgo": .number(peer.refreshedAgo.components.seconds),
            "switches": .number(peer.switches),
            "detourSeconds": peer.detouredFor.map { .number($0.components.seconds) } ?? .null,
            "chosenInterface": peer.chosenInterface.map(JSONValue.string) ?? .null,
            "packetsOut": .number(counted.packetsOut),
            "packetsIn": .number(counted.packetsIn),
            "octetsOut": .number(counted.octetsOut),
            "octetsIn": .number(counted.octetsIn),
            "problem": peer.problem.map(JSONValue.string) ?? .null,
        ])
    }

    private func counters(_ counters: NodeCounters) -> JSONValue {
        .object([
            "handovers": .number(counters.handovers),
            "answersWithheld": .number(counters.answersWithheld),
            "uplinkFailures": .number(counters.uplinkFailures),
            "detours": .number(counters.detours),
            "probesSent": .number(counters.probesSent),
            "registrations": .number(counters.registrations),
            "recordsLost": .number(counters.recordsLost),
            "messagesSent": .number(counters.messagesSent),
            "messagesReceived": .number(counters.messagesReceived),
            "retransmissions": .number(counters.retransmissions),
            "malformedDropped": .number(counters.malformedDropped),
            "unmatchedDropped": .number(counters.unmatchedDropped),
            "draftsDropped": .number(counters.draftsDropped),
            "recordsRefused": .number(counters.recordsRefused),
            "unknownSourcesAsked": .number(counters.strangersAsked),
            "unknownSourcesIdentified": .number(counters.strangersIdentified),
            "unknownSourcesPlain": .number(counters.strangersPlain),
            "destinationsResolved": .number(counters.destinationsResolved),
            "destinationsPlain": .number(counters.destinationsPlain),
            "destinationsUndecided": .number(counters.destinationsUndecided),
        ])
    }
}
