import MATControl
import MATSignal

/// Which packets `mat capture` writes, and what it says of each. Pure: `CaptureTaps` sees them.
///
/// ```
///   a program ──► inside: between home addresses ──► translation ──► outside: as a link carries it ──►
/// ```
/// A packet is seen on both sides, a moment apart. It is kept until the other side must have been seen, so that each can say what the other is, and
/// so that they stand in the order in which the packet met them, whatever the two clocks say.
struct CaptureSides {
    enum Side: Hashable {
        /// As programs see it.
        case inside
        /// As the link carries it.
        case outside(link: String)
    }

    struct Seen {
        var side: Side
        var direction: PcapNG.Direction
        /// Since 1970.
        var nanoseconds: UInt64
        /// Its beginning, or all of it.
        var octets: [UInt8]
        /// Of the whole packet.
        var length: Int
    }

    struct Written {
        var packet: Seen
        var isSignalling: Bool
        var comment: String
    }

    /// What an outside packet is.
    private enum Kind {
        case signalling(String)
        /// With the packet in it.
        case encapsulated(PacketView)
        /// Between this host and somebody: rewritten if it has an inside, or if a peer is there.
        case other(near: IPAddress, far: IPAddress)
    }

    /// What an other side is found by.
    private struct Kept: Hashable {
        var print: PacketView.Print
        var isInside: Bool
        var direction: PcapNG.Direction
    }

    private struct Entry {
        var seen: Seen
        var view: PacketView
        var kind: Kind?
        var number: UInt64
        var partner: PacketView?
        var partnerLink: String?
    }

    /// As long as the other side is waited for. What waits for a look-up, or is lost, has none.
    static let patience: UInt64 = 100_000_000
    /// Of what waits; beyond it the oldest are written as they are.
    static let waitingMax = 4096

    /// Only of this peer's, if there is one.
    private let peer: IPAddress?
    /// Where the node is, and where each peer is.
    private var own: Set<IPAddress> = []
    private var places: [IPAddress: IPAddress] = [:]
    /// By number, and those that have no other side yet, the oldest first.
    private var waiting: [UInt64: Entry] = [:]
    private var unpaired: [Kept: [UInt64]] = [:]
    private var count: UInt64 = 0
    /// Some packets came too fast to be seen: then it means nothing that one has no other side.
    var isLossy = false

    init(peer: IPAddress?) { self.peer = peer }

    /// What matd knows now: which outside addresses are whose.
    mutating func know(_ report: NodeReport) {
        own = Set(report.locators.compactMap { IPAddress($0.address) })
        places = [:]
        for entry in report.peers {
            guard let home = IPAddress(entry.home) else { continue }
            for place in entry.locators + [entry.locator].compactMap({ $0 }) {
                if let address = Self.address(place) { places[address] = home }
            }
        }
    }

    /// Of a locator as reports have it: an address, an endpoint (203.0.113.9:6289, [2001:db8::9]:6289), or "relay" and one of these.
    private static func address(_ text: String) -> IPAddress? {
        let place = text.split(separator: " ").last.map(String.init) ?? text
        if let address = IPAddress(place) { return address }
        guard let colon = place.lastIndex(of: ":") else { return nil }
        return IPAddress(String(place[..<colon].filter { $0 != "[" && $0 != "]" }))
    }

    // MARK: What comes

    mutating func take(_ seen: Seen) {
        guard let view = PacketView(seen.octets[...], length: seen.length) else { return }
        var entry = Entry(seen: seen, view: view, kind: nil, number: count, partner: nil, partnerLink: nil)
        switch seen.side {
        case .inside:
            let far = seen.direction == .outbound ? view.destination : view.source
            guard peer.map({ $0 == far }) ?? true else { return }
        case .outside:
            guard let kind = kind(of: seen, view) else { return }
            entry.kind = kind
        }
        count += 1
        pair(&entry)
        waiting[entry.number] = entry
    }

    private func kind(of seen: Seen, _ view: PacketView) -> Kind? {
        let (near, far) = seen.direction == .outbound ? (view.source, view.destination) : (view.destination, view.source)
        if let ports = view.ports, [ports.source, ports.destination].contains(where: Self.isSignalling), seen.octets.count > view.upper + 8 {
            let payload = seen.octets[(view.upper + 8)...]
            guard payload[payload.startIndex] >= 0x40 else {
                let names = Self.names(Array(payload))
                return peer == nil || places[far] == peer || places[far] == nil ? .signalling(names) : nil
            }
            guard let inner = PacketView(payload, length: seen.length - view.upper - 8) else { return nil }
            let innerFar = seen.direction == .outbound ? inner.destination : inner.source
            return peer.map { $0 == innerFar } ?? true ? .encapsulated(inner) : nil
        }
        return .other(near: near, far: far)
    }

    private static func isSignalling(_ port: UInt16) -> Bool { (SignalPort.ims...SignalPort.relay).contains(port) }

    private static func names(_ payload: [UInt8]) -> String {
        let names = SignalDatagram.decode(payload).map { element in
            switch element {
            case .message(let message, _): "\(message.type)"
            default: "a message that can't be read"
            }
        }
        return names.isEmpty ? "nothing that can be read" : names.joined(separator: ", ")
    }

    /// Finds the other side of a packet among those that wait.
    private mutating func pair(_ entry: inout Entry) {
        guard let kept = kept(entry, other: false), let sought = self.kept(entry, other: true) else { return }
        guard let number = unpaired[sought]?.first, var other = waiting[number] else {
            unpaired[kept, default: []].append(entry.number)
            return
        }
        forget(number, sought)
        (entry.partner, other.partner) = (other.view, entry.view)
        if case .outside(let link) = entry.seen.side { other.partnerLink = link }
        if case .outside(let link) = other.seen.side { entry.partnerLink = link }
        // The two sides are told by different sockets, but which the packet met first is known.
        let isFirst = isFirst(entry)
        let time = isFirst ? other.seen.nanoseconds : entry.seen.nanoseconds
        if isFirst { entry.seen.nanoseconds = min(entry.seen.nanoseconds, time) } else { other.seen.nanoseconds = min(other.seen.nanoseconds, time) }
        waiting[number] = other
    }

    private func kept(_ entry: Entry, other: Bool) -> Kept? {
        let print: PacketView.Print
        switch entry.kind {
        case .signalling?: return nil
        case .encapsulated(let inner)?: print = inner.print
        case .other?, nil: print = entry.view.print
        }
        return Kept(print: print, isInside: (entry.seen.side == .inside) != other, direction: entry.seen.direction)
    }

    private mutating func forget(_ number: UInt64, _ kept: Kept) {
        unpaired[kept]?.removeAll { $0 == number }
        if unpaired[kept]?.isEmpty == true { unpaired[kept] = nil }
    }

    private func isFirst(_ entry: Entry) -> Bool { (entry.seen.side == .inside) == (entry.seen.direction == .outbound) }

    // MARK: What is written

    /// What has waited for long enough, in order: by time; of equal times, by which side the packet met first.
    mutating func due(nanoseconds now: UInt64, all: Bool = false) -> [Written] {
        let order = waiting.values.sorted {
            ($0.seen.nanoseconds, isFirst($0) ? 0 : 1, $0.number) < ($1.seen.nanoseconds, isFirst($1) ? 0 : 1, $1.number)
        }
        var due = order.prefix { all || $0.seen.nanoseconds &+ Self.patience <= now }.count
        due = max(due, order.count - Self.waitingMax)
        var written: [Written] = []
        for entry in order.prefix(due) {
            waiting[entry.number] = nil
            if entry.partner == nil, let kept = kept(entry, other: false) { forget(entry.number, kept) }
            if let packet = write(entry) { written.append(packet) }
        }
        return written
    }

    /// - Returns: `nil` for what is none of ours.
    private func write(_ entry: Entry) -> Written? {
        let comment: String
        switch entry.kind {
        case .signalling(let names)?:
            comment = "signalling: \(names)"
        case .encapsulated(let inner)?:
            comment = "outside, in a datagram; inside it is \(inner.source) -> \(inner.destination)" + fate(entry)
        case .other(let near, let far)?:
            let home = own.contains(near) ? places[far] : nil
            // Of one that has an inside, that was judged by the peer.
            guard entry.partner != nil || home != nil && (peer == nil || home == peer) else { return nil }
            guard entry.partner?.source != entry.view.source || entry.partner?.destination != entry.view.destination else { return nil }
            let other = entry.partner.map { "inside it is \($0.source) -> \($0.destination)" } ?? "the peer is \(home.map(\.description) ?? "?")"
            comment = "outside, rewritten; \(other)" + fate(entry)
        case nil:
            let other = entry.partner.map { "; outside it is \($0.source) -> \($0.destination)\(entry.partnerLink.map { " on \($0)" } ?? "")" }
            comment = "inside, as programs see it" + (other ?? fate(entry))
        }
        var isSignalling = false
        if case .signalling? = entry.kind { isSignalling = true }
        return Written(packet: entry.seen, isSignalling: isSignalling, comment: comment)
    }

    /// Of one whose other side was not seen.
    private func fate(_ entry: Entry) -> String {
        guard entry.partner == nil else { return "" }
        guard !isLossy else { return "; its other side was not seen" }
        switch (entry.seen.side, entry.seen.direction) {
        case (.inside, .outbound): return "; nothing left for it within 100 ms: it waits in matd, or something here drops it"
        case (.outside, .inbound): return "; nothing came to a program of it within 100 ms: something here drops it, or it was joined with others"
        case (.inside, .inbound), (.outside, .outbound): return "; its other side was not seen"
        }
    }
}
