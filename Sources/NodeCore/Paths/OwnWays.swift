import MATSignal

/// The own addresses as ways out: which HoA each belongs to, which others could stand in for it, and which of our IMSs tell whether it works.
///
/// ```
///   used, or an answer over it is overdue ──► our IMSs over it, and over those that could stand in for it
///   nothing in use ─────────────────────────► the first IMS over the preferred one, if another could stand in for it
/// ```
struct OwnWays: Sendable {
    struct Home: Sendable {
        /// The addresses by which an own HoA can be reached, the best first.
        let places: [MobileAddress]
        let servers: [Endpoint]
        let hoa: HomeAddress
    }

    private let homes: [Home]

    /// - Parameter homes: in order; at most one of each family.
    init(_ homes: [Home]) { self.homes = homes }

    /// That of its own family, if it serves both.
    private func home(with own: MobileAddress) -> Home? {
        let all = homes.filter { $0.places.contains(own) }
        return all.first { $0.hoa.family == own.family } ?? all.first
    }

    /// The own HoA that an own address belongs to.
    func home(of own: MobileAddress) -> HomeAddress? { home(with: own)?.hoa }

    /// Whether it is the one that its HoA's traffic leaves from.
    func isFirst(_ own: MobileAddress) -> Bool { home(with: own)?.places.first == own }

    /// The other addresses by which the same HoA can be reached.
    func others(than own: MobileAddress) -> [MobileAddress] { home(with: own)?.places.filter { $0 != own } ?? [] }

    /// Our IMSs, as probes of an own address.
    func servers(over own: MobileAddress) -> [PathMonitor.Path] {
        home(with: own)?.servers.filter { $0.family == own.family }.prefix(Uplinks.recoveryMax).map { PathMonitor.Path(own, .server($0.address)) }
            ?? []
    }

    /// What tells whether anything answers over an address, and over those that could stand in for it; nothing if there is none.
    func suspicions(about own: MobileAddress) -> [PathMonitor.Path] {
        let others = others(than: own)
        return others.isEmpty ? [] : ([own] + others).flatMap(servers)
    }

    /// The addresses to look at when an answer over one is overdue: the other family of a link often shares its fate.
    ///
    /// - Parameter siblings: all addresses of its link.
    func suspects(for own: MobileAddress, _ siblings: [MobileAddress], _ uplinks: Uplinks) -> [MobileAddress] {
        siblings.filter { $0 == own || isFirst($0) && !uplinks.isDead($0) }
    }

    /// What is watched while nothing is in use: the preferred address of each HoA, if there is another to go to.
    var standing: Set<PathMonitor.Path> {
        Set(homes.compactMap { home in home.places.count > 1 ? home.places.first.flatMap { servers(over: $0).first } : nil })
    }
}
