import MATSignal

/// The two ends of a flow as the applications on them see it: with translation, or NAT, not mirror images of each other.
struct Ends {
    var mn: Endpoints
    var cn: Endpoints

    static func between(_ mn: IPAddress, _ cn: IPAddress) -> Ends {
        Ends(mn: Endpoints(local: mn, remote: cn), cn: Endpoints(local: cn, remote: mn))
    }
    static func moas(_ isIPv4: Bool) -> Ends { between(Plan.mnMoA(isIPv4), Plan.cnMoA(isIPv4)) }
    static func hoas(_ isIPv4: Bool) -> Ends { between(Plan.mnHoA(isIPv4), Plan.cnHoA(isIPv4)) }
}

/// What traffic is sent through a variant.
enum Pattern: String, Codable, Hashable {
    /// Between the two hosts.
    case pair
    /// From MN to each of its peers in turn, all of them addresses of CN, which does not translate: the cost of one host's way out.
    case out
    /// From each of the peers in turn to MN: the cost of one host's way in.
    case into = "in"
}

/// One row of the table: a way to carry packets, with so many peers known, in one family, under one pattern of traffic.
struct Case: Hashable {
    var variant: String
    var isIPv4: Bool
    var peers: Int
    var pattern: Pattern

    var name: String {
        var text = "\(variant) \(isIPv4 ? "v4" : "v6")"
        if peers > 0 { text += " \(peers)" }
        if pattern != .pair { text += " \(pattern.rawValue)" }
        return text
    }
}

/// A variant in place in the namespaces, until `remove`.
protocol Installed: AnyObject {
    var ends: Ends { get }
    /// Throws if something happened beside the measurement that spoils it.
    func check() throws
    /// Processor time so far of other processes that carry the packets, ns.
    func processorElsewhere() -> Double
    func remove()
}

extension Installed {
    func check() throws {}
    func processorElsewhere() -> Double { 0 }
}

/// Nothing in place, or something that a closure takes away.
final class Simple: Installed {
    let ends: Ends
    private let undo: () -> Void
    private let elsewhere: () -> Double

    init(_ ends: Ends, elsewhere: @escaping () -> Double = { 0 }, undo: @escaping () -> Void = {}) {
        self.ends = ends
        self.elsewhere = elsewhere
        self.undo = undo
    }

    func processorElsewhere() -> Double { elsewhere() }

    func remove() { undo() }
}
