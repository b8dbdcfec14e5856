import MATSignal

/// Why packets to a destination are never captured, so that nobody looks it up or holds them. Only a peer's route, which is for one address,
/// comes before it: who has spoken first is talked to by the mapping whatever the configuration says.
public enum Exemption: Hashable, Sendable {
    /// Loopback, link-local, multicast: of this host or its links.
    case link
    /// A DNS server that the agent asks.
    case nameServer
    /// An entry of `except`.
    case exception(IPPrefix)
    /// In the home prefix of this node's own mobile network.
    case ownNetwork
    /// `traffic` names other destinations, or none.
    case notSelected
    /// There is no own HoA of its family.
    case noHome
}

extension IMTConfiguration {
    /// Why packets to an address are not captured; `nil` if they are. As the kernel finds it: the longest prefix counts (`RoutePlan`).
    public func exemption(of destination: IPAddress) -> Exemption? {
        let family = destination.family
        func longest(_ prefixes: [IPPrefix]) -> IPPrefix? {
            prefixes.filter { $0.family == family && $0.contains(destination) }.max { $0.length < $1.length }
        }
        if longest(RoutePlan.neverCaptured(family)) != nil { return .link }
        guard primaryHome(family: family) != nil else { return .noHome }
        guard let captured = longest(capturedPrefixes(family)) else { return .notSelected }
        // Of equal prefixes there is one route, and the exception is written last.
        func isExempt(_ prefix: IPPrefix?) -> IPPrefix? { prefix.flatMap { $0.length >= captured.length ? $0 : nil } }
        if isExempt(longest(alwaysPlain)) != nil { return .nameServer }
        if let exception = isExempt(longest(exceptions)) { return .exception(exception) }
        if isExempt(longest(homePrefixes)) != nil { return .ownNetwork }
        return nil
    }

    /// What `traffic` selects, of a family.
    package func capturedPrefixes(_ family: AddressFamily) -> [IPPrefix] {
        switch traffic {
        case .everything: [KernelRoute.everything(family: family)]
        case .prefixes(let prefixes): prefixes.filter { $0.family == family }
        case .nothing: []
        }
    }
}
