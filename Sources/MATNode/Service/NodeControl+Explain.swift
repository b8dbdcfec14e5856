import MATControl
import MATRuntime
import MATSignal
import NodeCore

// What `mat explain` asks.

extension NodeService {
    func explain(_ request: ExplainRequest, _ now: Now) throws(ControlError) -> TrafficReports {
        guard request.conversations.count <= ExplainRequest.conversationsMax else {
            throw ControlError("\(request.conversations.count) conversations at once; ask about \(ExplainRequest.conversationsMax) at most")
        }
        let counted = environment.counters()
        var reports: [TrafficReport] = []
        for conversation in request.conversations {
            guard let remote = IPAddress(conversation.remote) else { throw ControlError("\(conversation.remote) is no address") }
            let local = try conversation.local.map { text throws(ControlError) in
                guard let local = IPAddress(text) else { throw ControlError("\(text) is no address") }
                return local
            }
            let explanation = shell.node.cores.explainTraffic(from: local, to: remote, environment.kernel.configuration, now: now)
            reports.append(TrafficReport(explanation, peer: explanation.peer.map { peer($0, counted) }))
        }
        return TrafficReports(homes: configuration.homes.map { $0.prefix.length == 128 ? "\($0.hoa)" : "\($0.prefix)" }, traffic: reports)
    }
}

extension TrafficReport {
    init(_ explanation: TrafficExplanation, peer: PeerReport?) {
        var reason: String?
        let survival: Survival
        switch explanation.survival {
        case .yes: survival = .yes
        case .perhaps(let text): (survival, reason) = (.perhaps, text)
        case .no: survival = .no
        case .unknown: survival = .unknown
        }
        self.init(
            local: explanation.own.map { "\($0)" }, remote: "\(explanation.remote)", way: Way(explanation.way), cause: Cause(explanation.cause),
            text: explanation.text, survives: survival, survivalReason: reason, remedy: explanation.remedy, peer: peer)
    }
}

extension TrafficReport.Way {
    init(_ way: TrafficExplanation.Way) {
        switch way {
        case .mapped: self = .mapped
        case .gateway: self = .gateway
        case .plain: self = .plain
        case .waits: self = .waits
        case .local: self = .local
        case .unknown: self = .unknown
        }
    }
}

extension TrafficReport.Cause {
    init(_ cause: TrafficExplanation.Cause) {
        switch cause {
        case .peer: self = .peer
        case .gateway: self = .gateway
        case .gatewayAwaited: self = .gatewayAwaited
        case .thisHost: self = .thisHost
        case .link: self = .link
        case .ownNetwork: self = .ownNetwork
        case .noHome: self = .noHome
        case .nameServer: self = .nameServer
        case .exception: self = .exception
        case .notSelected: self = .notSelected
        case .ownAddress: self = .ownAddress
        case .peersAddress: self = .peersAddress
        case .noServers: self = .noServers
        case .noMapping: self = .noMapping
        case .silentNames: self = .silentNames
        case .lookedUp: self = .lookedUp
        case .asked: self = .asked
        case .unseen: self = .unseen
        }
    }
}
