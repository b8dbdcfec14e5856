import MATSignal

/// What `mat explain` is asked about.
enum ExplainTarget: Hashable, Sendable {
    case address(IPAddress)
    case process(Int32)
    /// All that a socket with this end talks to.
    case end(Endpoint)
    case socket(local: Endpoint, remote: Endpoint)
    case name(String)

    /// An address, a process's number, `LOCAL:PORT-REMOTE:PORT`, a line of ss(8) in one argument or several, or a host's name.
    static func parse(_ words: [String]) -> ExplainTarget? {
        let words = words.flatMap { $0.split { $0 == " " || $0 == "\t" }.map(String.init) }
        if words.count == 1, let word = words.first {
            if let address = address(word[...]) { return .address(address) }
            if let number = Int32(word), number > 0 { return .process(number) }
            if let end = endpoint(word[...]) { return .end(end) }
            for dash in word.indices where word[dash] == "-" {
                if let local = endpoint(word[..<dash]), let remote = endpoint(word[word.index(after: dash)...]) {
                    return .socket(local: local, remote: remote)
                }
            }
            return NameAddresses.isName(word) ? .name(word) : nil
        }
        // A line of ss: state, queues, then both ends, and perhaps whose it is.
        let ends = words.compactMap { endpoint($0[...]) }
        guard let local = ends.first, ends.count == 2 else { return nil }
        return ends[1].port == 0 ? .end(local) : .socket(local: local, remote: ends[1])
    }

    /// With brackets or without; what is behind `%` is the interface, as ss writes it.
    private static func address(_ text: Substring) -> IPAddress? {
        var text = text
        if text.hasPrefix("["), text.hasSuffix("]") { text = text.dropFirst().dropLast() }
        return IPAddress(String(text.prefix { $0 != "%" }))
    }

    /// Any address or any port is `*`.
    private static func endpoint(_ text: Substring) -> Endpoint? {
        guard let colon = text.lastIndex(of: ":") else { return nil }
        let (host, service) = (text[..<colon], text[text.index(after: colon)...])
        guard let port = service == "*" ? 0 : UInt16(service) else { return nil }
        if host == "*" { return IPAddress("::").map { Endpoint($0, port: port) } }
        // Without brackets an IPv6 address's own last part would be taken for a port.
        guard host.hasPrefix("[") || !host.contains(":") else { return nil }
        return address(host).map { Endpoint($0, port: port) }
    }
}
