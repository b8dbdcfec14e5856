import MATControl
import MATSignal

// Private addresses as locators (section 6): they mean the same host to both ends only within one site, or where their prefix is routed
// between them without translation, which only people know. Whoever can't use them is told so, at both ends.

extension UsableAddresses {
    /// Why nothing is sent to a peer: none of its places means the same host here.
    func scopeProblem(of peer: Peer) -> Problem? {
        let moas = peer.locators.listed.map(\.moa)
        guard let first = moas.first(where: { $0.family == peer.hoa.family }), moas.allSatisfy({ !isInReach($0) }) else { return nil }
        let text =
            "its locator \(first) is \(first.address.scope) and not of global scope: it is not used from here unless `routed` in matd.yaml names its prefix"
        return Problem(.notGlobal, of: peer.hoa, text)
    }
}

extension AddressScope: CustomStringConvertible {
    public var description: String {
        switch self {
        case .global: "a global address"
        case .privateUse: "a private address (RFC 1918)"
        case .shared: "a provider's shared address (RFC 6598)"
        case .uniqueLocal: "a site's own address (RFC 4193)"
        case .none: "no usable address"
        }
    }
}
