import IMTKernel
import IMTPlan
import MATControl
import MATDNS
import MATRuntime
import MATSignal
import NodeCore

// The control socket's commands: what `mat status`, `mat peers` and `mat handover` ask.

extension NodeService {
    private var core: NodeCores { shell.node.cores }
    private var names: NodeNames { environment.names }
    private var rulePlace: RulePlace { environment.kernel.rulePlace }

    func answer(_ request: ControlRequest, _ respond: @escaping (ControlResponse) -> Void) {
        do throws(ControlError) {
            switch NodeCommand(rawValue: request.command) {
            // Answered when there is something to say.
            case .visit: try visit(request, respond)
            case .steer: try steer(try request.arguments(as: SteerRequest.self), by: request, respond)
            default: respond(answer(request))
            }
        } catch {
            respond(.failed(error.description))
        }
    }

    private func answer(_ request: ControlRequest) -> ControlResponse {
        do throws(ControlError) {
            guard let command = NodeCommand(rawValue: request.command) else {
                throw ControlError("matd does not know the command \"\(request.command)\"; are mat and matd of one version?")
            }
            switch command {
            case .status: return .result(report(SystemClock.now()))
            case .peers: return .result(peersReport(SystemClock.now()))
            case .why: return .result(try explain(try request.arguments(as: WhyRequest.self), SystemClock.now()))
            case .explain: return .result(try explain(try request.arguments(as: ExplainRequest.self), SystemClock.now()))
            case .trace: return .result(try trace(try request.arguments(as: TraceRequest.self), SystemClock.now()))
            case .history: return .result(history())
            case .release: return .result(ReleaseReport(released: release(request.connection)))
            case .visit, .steer: return .failed("this is a fault of matd: \(request.command) is answered elsewhere")
            case .handover: return try handOver(try request.arguments(as: HandoverRequest.self))
            case .programs: return .result(try programsReport(SystemClock.now()))
            }
        } catch {
            return .failed(error.description)
        }
    }

    private func handOver(_ request: HandoverRequest) throws(ControlError) -> ControlResponse {
        let interface = request.interface
        if let interface, !core.ownLocators.contains(where: { $0.interface == interface }) {
            let usable = Set(core.ownLocators.map(\.interface)).sorted().joined(separator: ", ")
            throw ControlError("\(interface) has no usable address; usable now: \(usable.isEmpty ? "none" : usable)")
        }
        if let peer = request.peer {
            guard let address = IPAddress(peer) else { throw ControlError("\(peer) is no address") }
            shell.run { node, now in node.prefer(interface: interface, for: HomeAddress(address), now: now) }
        } else {
            shell.run { node, now in node.prefer(interface: interface, now: now) }
        }
        return .result(report(SystemClock.now()))
    }

    private func explain(_ request: WhyRequest, _ now: Now) throws(ControlError) -> WhyReport {
        guard let peer = IPAddress(request.peer) else { throw ControlError("\(request.peer) is no address") }
        guard let explanation = core.explain(HomeAddress(peer), now: now) else {
            throw ControlError("this node has no home address of the family of \(peer)")
        }
        var report = WhyReport(explanation)
        report.plain = plainDatagrams(explanation, now)
        return report
    }

    /// Flows of datagrams with the peer beside the mapping. A socket that is not connected shows none of them, so `mat` can't see them.
    private func plainDatagrams(_ explanation: PathExplanation, _ now: Now) -> [WhyReport.PlainConversation] {
        let places = Set(explanation.candidates.filter { $0.kind == .direct }.map(\.place.address) + [explanation.peer.address])
        let flows = environment.plainDatagramFlows(to: places).map { flow in
            (local: Endpoint(flow.own.address, port: flow.ownPort), remote: Endpoint(flow.peer.address, port: flow.peerPort))
        }
        return flows.sorted { ($0.remote, $0.local) < ($1.remote, $1.local) }.prefix(ExplainRequest.conversationsMax).compactMap { flow in
            let traffic = core.explainTraffic(from: flow.local.address, to: flow.remote.address, environment.kernel.configuration, now: now)
            guard traffic.way == .plain, traffic.survival != .yes else { return nil }
            return WhyReport.PlainConversation(
                transport: "udp", local: "\(flow.local)", remote: "\(flow.remote)",
                reason: "\(traffic.text) (datagrams that passed in the last 3 minutes)")
        }
    }

    private func history() -> HistoryReport {
        func place(_ place: HandoverHistory.Place) -> HistoryReport.Place {
            HistoryReport.Place(address: shell.node.named(place.moa.address) ?? "\(place.moa)", interface: place.interface)
        }
        return HistoryReport(
            handovers: core.handovers.map { handover in
                HistoryReport.Handover(
                    home: "\(handover.hoa)", atMilliseconds: handover.began.wallMilliseconds, reason: HistoryReport.Reason(handover.cause),
                    from: handover.from.map(place), to: handover.to.map(place), overlap: handover.hasOverlap,
                    withoutAddressMilliseconds: handover.withoutAddress?.millisecondsSaturated,
                    registeredAfterMilliseconds: handover.registeredAfter?.millisecondsSaturated, peers: handover.peers,
                    peersTold: handover.peersTold, toldAfterMilliseconds: handover.toldAfter?.millisecondsSaturated,
                    packetsHeld: handover.packetsHeld, packetsLost: handover.packetsLost)
            })
    }

    private func report(_ now: Now) -> NodeReport { report(now, environment.counters()) }

    /// - Parameter counted: by the kernel, of each peer.
    func report(_ now: Now, _ counted: [HomePair: PeerCounters]) -> NodeReport {
        report(status(now, counted), now, counted)
    }

    func status(_ now: Now, _ counted: [HomePair: PeerCounters]) -> NodeStatus {
        shell.tell(counted.mapValues(\.packets))
        return core.status(now: now)
    }

    func report(_ status: NodeStatus, _ now: Now, _ counted: [HomePair: PeerCounters]) -> NodeReport {
        NodeReport(
            uptimeMilliseconds: (now.monotonic - started).millisecondsSaturated, registered: core.isRegistered,
            homes: status.registrations.map(HomeReport.init), locators: zip(status.locators, status.uplinks).map(locator),
            relays: status.relays.map(RelayReport.init), relayOnly: status.isRelayOnly,
            unusedAddresses: shell.node.addresses.unused.map { unused in
                UnusedAddressReport(address: "\(unused.address)", interface: unused.interface, reason: unused.reason)
            },
            silentRouters: shell.node.addresses.silentRouters.map { router in
                SilentRouterReport(address: "\(router.address)", interface: router.interface, instead: router.instead.map { "\($0)" })
            },
            routingRules: RoutingRulesReport(base: rulePlace.base, passed: rulePlace.passed, before: rulePlace.before),
            pathsWatched: status.pathsWatched, chosenInterface: status.chosenInterface, peers: status.peers.map { peer($0, counted) },
            peersCount: status.peersCount, peersTroubled: status.peersTroubled, resolving: status.resolving,
            undecided: undecided(status),
            dns: dns(now.monotonic), unknownSources: status.strangers, repairs: repairs, lastRepair: lastRepair,
            counters: NodeCountersReport(status.counters))
    }

    private func locator(_ locator: OwnLocator, _ uplink: NodeStatus.UplinkState) -> LocatorReport {
        var uplink = uplink
        if uplink.reason == nil { uplink.reason = shell.node.named(locator.moa.address).map { "stands for \($0)" } }
        if let port = shell.node.otherPort(of: locator.moa.address) {
            let text = "from port \(port), since nothing came back to \(SignalPort.node)"
            uplink.reason = uplink.reason.map { "\($0); \(text)" } ?? text
        }
        return LocatorReport(locator, uplink)
    }

    private func undecided(_ status: NodeStatus) -> UndecidedReport {
        UndecidedReport(count: status.undecidedCount, destinations: status.undecided.map(UndecidedReport.Destination.init))
    }

    private func peersReport(_ now: Now) -> MATControl.PeersReport {
        let counted = environment.counters()
        let status = status(now, counted)
        return PeersReport(
            peers: status.peers.map { peer($0, counted) }, peersCount: status.peersCount, peersTroubled: status.peersTroubled,
            undecided: undecided(status))
    }

    func peer(_ peer: NodeStatus.PeerState, _ counters: [HomePair: PeerCounters]) -> PeerReport {
        let counted = counters[HomePair(own: peer.ownHoA, peer: peer.hoa)] ?? PeerCounters()
        return PeerReport(
            home: "\(peer.hoa)", ownHome: "\(peer.ownHoA)", path: peer.path,
            locator: (peer.relay ?? peer.endpoint).map { "\($0)" } ?? peer.moa.map { "\($0)" }, ownLocator: peer.ownMoA.map { "\($0)" },
            interface: core.ownLocators.first { $0.moa == peer.ownMoA }?.interface, locators: peer.locators,
            confirmed: !peer.isProvisional, proven: peer.isProven, ageMilliseconds: peer.age.millisecondsSaturated,
            refreshedAgoMilliseconds: peer.refreshedAgo.millisecondsSaturated, switches: peer.switches,
            detourMilliseconds: peer.detouredFor?.millisecondsSaturated,
            chosenInterface: peer.chosenInterface, packetsOut: counted.packetsOut, packetsIn: counted.packetsIn, octetsOut: counted.octetsOut,
            octetsIn: counted.octetsIn, problem: peer.problem, standing: PeerReport.Standing(peer.standing), standingReason: peer.standing.reason)
    }

    private func dns(_ now: MonotonicTime) -> DNSReport {
        let servers = names.resolver.configuration.servers.map { server in
            let state = names.resolver.states[server]
            return DNSReport.Server(
                address: "\(server.endpoint.address)\(server.interface.map { "%\($0)" } ?? "")", port: server.endpoint.port,
                isUpstream: server.isUpstream, answeredAgoMilliseconds: state?.answered.map { (now - $0).millisecondsSaturated },
                failingMilliseconds: state?.failingSince.map { (now - $0).millisecondsSaturated }, failure: state?.failure.map(Self.words))
        }
        return DNSReport(from: names.origin, servers: servers)
    }

    /// Of one server, rather than of all that were asked.
    private static func words(_ failure: DNSFailure) -> String {
        switch failure {
        case .timeout: "no answer"
        case .unreachable: "not reachable"
        default: failure.description
        }
    }
}

extension HistoryReport.Reason {
    init(_ cause: HandoverHistory.Cause) {
        self =
            switch cause {
            case .addressGone: .addressGone
            case .pathDead: .pathDead
            case .chosen: .chosen
            case .preferred: .preferred
            }
    }
}

extension HomeReport {
    init(_ home: NodeStatus.Registration) {
        self.init(
            address: "\(home.hoa)", prefix: home.prefix.length == 128 ? nil : "\(home.prefix)", locators: home.locators,
            servers: home.servers.map { "\($0)" }, state: home.phase, ageMilliseconds: home.age?.millisecondsSaturated,
            expiresInMilliseconds: home.expiresIn?.millisecondsSaturated, certificateNotAfterMilliseconds: home.certificateNotAfter,
            certificateEndsSoon: home.certificateEndsSoon, sequence: home.sequence, problem: home.problem,
            nextTryMilliseconds: home.nextTryIn?.millisecondsSaturated)
    }
}

extension LocatorReport {
    init(_ locator: OwnLocator, _ uplink: NodeStatus.UplinkState) {
        self.init(
            address: "\(locator.moa)", interface: locator.interface, state: uplink.state, deprecated: locator.isDeprecated, reason: uplink.reason,
            silentMilliseconds: uplink.silentFor?.millisecondsSaturated, nextCheckMilliseconds: uplink.nextCheckIn?.millisecondsSaturated,
            trustedInMilliseconds: uplink.trustedIn?.millisecondsSaturated, failures: uplink.failures,
            translation: uplink.translation.map { translation in
                TranslationReport(
                    seen: translation.seen.map { "\($0)" }, mapping: translation.mapping.map(TranslationReport.Mapping.init), text: translation.text)
            })
    }
}

extension RelayReport {
    init(_ relay: NodeStatus.RelayState) {
        let state: State
        var reason: String?
        switch relay.standing {
        case .notNeeded: state = .notNeeded
        case .asked: state = .asked
        case .bound: state = .bound
        case .unlisted: state = .unlisted
        case .silent: state = .silent
        case .unreachable: state = .unreachable
        case .refused(let text): (state, reason) = (.refused, text)
        }
        self.init(
            home: "\(relay.hoa)", addresses: relay.endpoints.map { "\($0)" }, state: state, address: relay.server.map { "\($0)" },
            locator: relay.own.map { "\($0)" }, observed: relay.observed.map { "\($0)" }, reason: reason,
            gateway: relay.role.contains(.gateway) ? "routed" : relay.role.contains(.translatingGateway) ? "source-nat" : nil)
    }
}

extension NodeStatus.PeerState {
    fileprivate var path: PeerReport.Path? {
        if relay != nil { return .relayed }
        if endpoint != nil { return .encapsulated }
        return moa == nil ? nil : .direct
    }
}

extension PeerReport.Path {
    init(_ kind: PathExplanation.Kind) {
        switch kind {
        case .direct: self = .direct
        case .encapsulated: self = .encapsulated
        case .relayed: self = .relayed
        }
    }
}

extension PeerReport.Standing {
    init(_ standing: Standing) {
        switch standing {
        case .mapped: self = .mapped
        case .oneSided: self = .oneSided
        case .unreachable: self = .unreachable
        }
    }
}

extension WhyReport {
    init(_ explanation: PathExplanation) {
        self.init(
            peer: "\(explanation.peer)", ownHome: "\(explanation.own)",
            candidates: explanation.candidates.map { candidate in
                WhyReport.Candidate(
                    path: PeerReport.Path(candidate.kind), to: "\(candidate.place)", from: candidate.own.map { "\($0)" },
                    used: candidate.isUsed, state: candidate.state, remedy: candidate.remedy)
            }, translations: explanation.translations.map { "\($0.moa) is \($0.text)" }, peerTranslation: explanation.peerTranslation,
            problem: explanation.problem)
    }
}

extension TranslationReport.Mapping {
    init(_ mapping: Translation.Mapping) {
        switch mapping {
        case .unknown: self = .unknown
        case .endpointIndependent: self = .endpointIndependent
        case .endpointDependent: self = .endpointDependent
        }
    }
}

extension UndecidedReport.Destination {
    init(_ state: NodeStatus.UndecidedState) {
        self.init(
            address: "\(state.hoa)", isPlain: state.isPlain, reason: state.reason, ageMilliseconds: state.age.millisecondsSaturated,
            askedAgoMilliseconds: state.askedAgo.millisecondsSaturated)
    }
}

extension NodeCountersReport {
    init(_ counters: NodeCounters) {
        self.init()
        handovers = counters.handovers
        answersWithheld = counters.answersWithheld
        uplinkFailures = counters.uplinkFailures
        detours = counters.detours
        probesSent = counters.probesSent
        registrations = counters.registrations
        recordsLost = counters.recordsLost
        messagesSent = counters.messagesSent
        messagesReceived = counters.messagesReceived
        retransmissions = counters.retransmissions
        malformedDropped = counters.malformedDropped
        unmatchedDropped = counters.unmatchedDropped
        draftsDropped = counters.draftsDropped
        recordsRefused = counters.recordsRefused
        unknownSourcesAsked = counters.strangersAsked
        unknownSourcesIdentified = counters.strangersIdentified
        unknownSourcesPlain = counters.strangersPlain
        destinationsResolved = counters.destinationsResolved
        destinationsPlain = counters.destinationsPlain
        destinationsUndecided = counters.destinationsUndecided
    }
}
