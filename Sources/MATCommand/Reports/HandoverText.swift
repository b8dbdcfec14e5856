import MATControl

/// One line on what a handover has begun; it goes on in matd.
enum HandoverText {
    /// What may be so although matd did not answer.
    static func unanswered(peer: String?) -> String {
        let place = peer.map { "see where `mat peers` has packets to \($0) go" } ?? "see `mat history`, and what `mat status` says is preferred"
        return "matd may still move: \(place)"
    }

    static func text(peer: String, _ interface: String?) -> String {
        interface.map { "using \($0) first towards \(peer), known or not yet. `mat peers` shows the state\n" }
            ?? "towards \(peer) the order in matd.yaml holds again\n"
    }

    static func text(_ status: NodeReport) -> String {
        guard let interface = status.chosenInterface ?? status.locators.first?.interface else {
            return "no interface has a usable address; matd hands over as soon as one has\n"
        }
        let addresses = status.locators.filter { $0.interface == interface }.map(\.address)
        let peers = max(status.peersCount, status.peers.count)
        let news = peers == 0 ? "no peers to tell" : "telling \(Quantity.count(Int64(peers), "peer"))"
        return "using \(interface) (\(addresses.joined(separator: ", "))) first; \(news). `mat status` shows the state\n"
    }
}
