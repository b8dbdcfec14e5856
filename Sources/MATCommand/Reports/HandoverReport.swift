import MATRuntime

/// One line on what a handover has begun; it goes on in matd.
enum HandoverReport {
    static func text(peer: String, _ interface: String?) -> String {
        interface.map { "using \($0) first towards \(peer), known or not yet. `mat peers` shows the state\n" }
            ?? "towards \(peer) the order in matd.yaml holds again\n"
    }

    static func text(_ status: JSONValue) -> String {
        let locators = status["locators"]?.array ?? []
        let interface = status["chosenInterface"]?.string ?? locators.first?["interface"]?.string
        guard let interface else { return "no interface has a usable address; matd hands over as soon as one has\n" }
        let addresses = locators.filter { $0["interface"]?.string == interface }.compactMap { $0["address"]?.string }
        let peers = status["peersCount"]?.int ?? Int64(status["peers"]?.array?.count ?? 0)
        let news = peers == 0 ? "no peers to tell" : "telling \(Quantity.count(peers, "peer"))"
        return "using \(interface) (\(addresses.joined(separator: ", "))) first; \(news). `mat status` shows the state\n"
    }
}
