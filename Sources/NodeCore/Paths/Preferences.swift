import MATSignal

/// Which interfaces to use towards single peers, as a person says now, or as the configuration says of their prefix.
struct Preferences: Sendable {
    /// Peers for which a person can choose an interface at a time.
    static let chosenMax = 1024

    private(set) var configured: [PeerPreference]
    private var chosen: [HomeAddress: String] = [:]

    init(_ configuration: NodeCoreConfiguration) { configured = configuration.peerPreferences }

    mutating func configure(_ fresh: [PeerPreference]) { configured = fresh }

    var isEmpty: Bool { chosen.isEmpty && configured.isEmpty }

    /// The interface that a person chose for the peer.
    func chosenInterface(for peer: HomeAddress) -> String? { chosen[peer] }

    /// A person wants this interface to be used first towards one peer; `nil` goes back to what is configured.
    ///
    /// - Returns: whether it counts. Where there is no room it does not.
    mutating func choose(_ interface: String?, for peer: HomeAddress) -> Bool {
        guard let interface, chosen[peer] != nil || chosen.count < Self.chosenMax else {
            chosen[peer] = nil
            return false
        }
        chosen[peer] = interface
        return true
    }

    /// What was said about this peer: by a person now, else by the configuration's longest prefix.
    func interfaces(for peer: HomeAddress) -> [String] {
        if let chosen = chosen[peer] { return [chosen] }
        return configured.filter { $0.prefix.contains(peer.address) }.max { $0.prefix.length < $1.prefix.length }?.interfaces ?? []
    }

    /// The own addresses for a peer, the best first: the node's order, with the interfaces said for this peer before the others.
    /// What does not work comes last all the same, and only what our record lists is a choice: others the peer does not accept.
    ///
    /// - Parameter places: the own addresses of its family, in the node's order.
    func addresses(for peer: HomeAddress, among places: [MobileAddress], listedIn record: MappingRecord?, _ own: UsableAddresses, _ uplinks: Uplinks)
        -> [MobileAddress]
    {
        let wanted = isEmpty ? [] : interfaces(for: peer)
        guard !wanted.isEmpty, places.count > 1 else { return places }
        let choice = places.filter { $0 == places.first || record?.lists($0) ?? false }
        func rank(_ moa: MobileAddress) -> Int { own.interface(of: moa).flatMap { wanted.firstIndex(of: $0) } ?? wanted.count }
        return choice.enumerated().sorted { a, b in
            (uplinks.order(a.element), rank(a.element), a.offset) < (uplinks.order(b.element), rank(b.element), b.offset)
        }.map(\.element)
    }
}
