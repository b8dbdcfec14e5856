import MATSignal

/// Which addresses the sockets of a program start from, unless the program binds them itself.
public enum ProgramVia: Hashable, Sendable {
    /// Home addresses, one of each family at most, whatever `traffic` says; a family without one is as it is for other programs.
    case homes(ipv4: HomeAddress?, ipv6: HomeAddress?)
    /// Those of the network, by the main routing table.
    case plain

    /// - Returns: `nil` for two addresses of one family, and for none.
    public init?(homes: some Sequence<HomeAddress>) {
        var (ipv4, ipv6): (HomeAddress?, HomeAddress?)
        for home in homes {
            switch home.family {
            case .ipv4 where ipv4 == nil: ipv4 = home
            case .ipv6 where ipv6 == nil: ipv6 = home
            default: return nil
            }
        }
        guard ipv4 != nil || ipv6 != nil else { return nil }
        self = .homes(ipv4: ipv4, ipv6: ipv6)
    }

    package func home(_ family: AddressFamily) -> HomeAddress? {
        guard case .homes(let ipv4, let ipv6) = self else { return nil }
        return family == .ipv4 ? ipv4 : ipv6
    }

    /// Those it names.
    public var homes: [HomeAddress] { AddressFamily.allCases.compactMap { home($0) } }

    /// As it stands in a control group's name: `plain`, or the addresses with a plus between them.
    package func write() -> String {
        switch self {
        case .plain: "plain"
        case .homes: homes.map(\.description).joined(separator: "+")
        }
    }

    package static func parse(_ text: some StringProtocol) -> ProgramVia? {
        if text == "plain" { return .plain }
        let parts = text.split(separator: "+", omittingEmptySubsequences: false)
        let homes = parts.compactMap { IPAddress(String($0)).map { HomeAddress($0) } }
        return homes.count == parts.count ? ProgramVia(homes: homes) : nil
    }
}
