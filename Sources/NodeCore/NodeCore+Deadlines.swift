import MATCore
import MATSignal

// Time: which deadlines a node has, and whose each is.

extension NodeCore {
    /// What a deadline is for.
    enum Deadline: Hashable, Sendable {
        case locator(HomeAddress, MobileAddress)
        case destination(HomeAddress)
        /// The DNS gave no answer about a destination, and is asked again.
        case destinationLookUp(HomeAddress)
        case stranger(MobileAddress)
        case adoption
        /// Asking for the peers of an earlier run goes on.
        case adopting
        /// Telling peers of a move goes on.
        case backlog
        /// The interface that a person chose has been without a family's addresses for a while.
        case arrangement
        /// Connections that begin from an own HoA have waited for peers to hear of a move.
        case connections(HomeAddress)
        /// An IMS takes HA Notifies again.
        case server(IPAddress)
        /// Peers whose locators may or may not be used since our own scope changed.
        case scope
        case paths
        /// Something of the bindings at own servers.
        case bindings
        /// A plain host that a gateway carries is to be looked up again, or its packets have waited.
        case gateways
        /// A probe within a path has waited for its answer.
        case inPath
        /// The IMS's locator check of an own address should have come.
        case reachability
        /// Rewritten packets may take a pair of networks again that was filtered.
        case trials
    }

    /// When `timerFired` wants to be called next.
    public var nextDeadline: MonotonicTime? {
        mutating get {
            peers.nextDue.earlier(exchanges.nextDue).earlier(nextHomeDue).earlier(deadlines.next).earlier(peerEndpoints.nextDue)
                .earlier(pathMTUs.nextDue).earlier(candidates.nextDue).earlier(peerRelays.nextDue)
        }
    }

    public mutating func timerFired(now: Now) -> [NodeAction] {
        while let due = nextDeadline, due <= now.monotonic {
            if peers.nextDue == due, let hoa = peers.takeDue(now.monotonic) {
                peerDue(hoa, now)
            } else if exchanges.nextDue == due {
                perform(exchanges.due(preferred: preferredSources, now.monotonic), now)
            } else if nextHomeDue == due {
                homeDue(now)
            } else if peerEndpoints.nextDue == due, let hoa = peerEndpoints.takeDue(now.monotonic) {
                endpointsDue(of: hoa, now)
            } else if candidates.nextDue == due, let hoa = candidates.takeDue(now.monotonic) {
                candidatesDue(of: hoa, now)
            } else if pathMTUs.nextDue == due {
                pathMTUDue(now)
            } else if peerRelays.nextDue == due, let hoa = peerRelays.takeDue(now.monotonic) {
                relaysDue(of: hoa, now)
            } else if let deadline = deadlines.takeDue(now.monotonic) {
                self.due(deadline, now)
            } else {
                break
            }
        }
        return endEvent()
    }

    private mutating func due(_ deadline: Deadline, _ now: Now) {
        switch deadline {
        case .locator(let hoa, let moa): locatorDue(hoa, moa, now)
        case .destination(let hoa): destinationDue(hoa, now)
        case .destinationLookUp(let hoa): destinationLookUpDue(hoa, now)
        case .stranger(let moa): strangerDue(moa, now)
        case .adoption: adoptionDue(now)
        case .adopting: goOnAdopting(now)
        case .backlog: workOff(now)
        case .arrangement: arrangeAgain(now)
        case .connections(let hoa): letConnections(of: hoa)
        case .server(let server): serverDue(server, now)
        case .scope: reconsiderScope(now)
        case .paths: pathsDue(now)
        case .bindings: bindingsDue(now)
        case .gateways: gatewaysDue(now)
        case .inPath: inPathDue(now)
        case .reachability: checksDue(now)
        case .trials: trialsDue(now)
        }
    }
}
