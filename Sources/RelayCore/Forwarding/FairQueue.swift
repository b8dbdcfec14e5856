import DequeModule
import MATCore
import MATSignal

/// Packets that wait for one rate that many HoAs share, each source's in a line of its own (deficit round robin: Shreedhar and Varghese, 1995).
///
/// ```
///   packet ──► line of its source ──────────────┐
///                more than its share: dropped   │   turn: the first line gets `turnOctets` more than it had left, sends what that covers
///   packet ──► line of another source ──────────┼─► while the rate has room, and goes to the end; an empty one leaves
///                                               │
///                          waited too long: dropped
/// ```
/// Shares are of octets, so that who sends large packets, or many, has no more of the rate than who sends few; what comes now and then
/// waits for one turn of the others. A line may hold the queue's octets divided by the number of lines and one more: so there is always room for
/// another source, without a search for whom to take it from.
struct FairQueue: Sendable {
    struct Packet: Hashable, Sendable {
        var octets: [UInt8]
        /// The slot of the binding that sent it; of what plain hosts send, that of the one that gets it: they are no HoAs, and together have one line.
        var source: UInt32
        var destination: IPAddress
        /// The DSCP and ECN of the datagram that it came in, or is to go in.
        var trafficClass: Int32
        var direction = Direction.betweenNodes
        /// When it has waited for too long.
        var until: MonotonicTime
    }

    enum Direction: Hashable, Sendable {
        case betweenNodes
        /// Of a gateway.
        case toPlain, fromPlain
    }

    private struct Line: Sendable {
        var packets: Deque<Packet> = []
        var octets = 0
        /// What it may send before its turn is over.
        var deficit = 0
    }

    /// By source, those in `turns` and no others.
    private var lines: [UInt32: Line] = [:]
    private var turns: Deque<UInt32> = []
    private(set) var octets = 0
    /// What lines share among them.
    var octetsMax: Int

    /// A packet as the internet has them: a line's turn. Larger ones wait for several.
    private static let turnOctets = 1500
    /// What a line may always hold, however many there are.
    private static let lineOctetsMin = 3000
    /// Lines of the least size take no more than this in all.
    private static let partsMax = 4
    /// What a packet takes besides its octets.
    private static let packetOverhead = 64

    init(octetsMax: Int) { self.octetsMax = octetsMax }

    var isEmpty: Bool { turns.isEmpty }
    var linesCount: Int { turns.count }

    /// Whether a packet of this source may wait, before it is copied for that.
    func hasRoom(for count: Int, of source: UInt32) -> Bool {
        guard octets + count + Self.packetOverhead <= Self.partsMax * octetsMax else { return false }
        let line = lines[source]
        let share = max(Self.lineOctetsMin, octetsMax / (turns.count + (line == nil ? 2 : 1)))
        // One packet may wait whatever its size.
        return line.map { $0.octets + count + Self.packetOverhead <= share } ?? true
    }

    /// A packet that has room.
    mutating func add(_ packet: Packet) {
        let count = packet.octets.count + Self.packetOverhead
        if lines[packet.source] == nil { turns.append(packet.source) }
        lines[packet.source, default: Line()].packets.append(packet)
        lines[packet.source, default: Line()].octets += count
        octets += count
    }

    enum OnNext: Hashable, Sendable {
        case send(Packet)
        case tooOld(Packet)
        /// Nothing waits, or the rate has no room for whose turn it is.
        case none
    }

    /// The packet whose turn it is.
    ///
    /// - Parameter take: takes so many octets of the rate if there are as many. Called once at most.
    mutating func next(_ now: MonotonicTime, take: (Int) -> Bool) -> OnNext {
        while let source = turns.first, let place = lines.index(forKey: source), let first = lines.values[place].packets.first {
            if now >= first.until { return .tooOld(removeFirst(of: source, at: place, endsTurn: false)) }
            let count = first.octets.count
            let deficit = lines.values[place].deficit
            if deficit >= count {
                guard take(count) else { return .none }
                lines.values[place].deficit -= count
                return .send(removeFirst(of: source, at: place, endsTurn: true))
            }
            lines.values[place].deficit += Self.turnOctets
            // If what its turn gives is too little for the packet, it goes on with the next.
            if deficit + Self.turnOctets < count { toTheEnd() }
        }
        return .none
    }

    private mutating func toTheEnd() {
        guard turns.count > 1 else { return }
        turns.append(turns.removeFirst())
    }

    /// - Parameters:
    ///   - source: whose turn it is.
    ///   - endsTurn: whether its turn is over if what it has left is too little for its next packet.
    private mutating func removeFirst(of source: UInt32, at place: Dictionary<UInt32, Line>.Index, endsTurn: Bool) -> Packet {
        let packet = lines.values[place].packets.removeFirst()
        let count = packet.octets.count + Self.packetOverhead
        lines.values[place].octets -= count
        octets -= count
        if let following = lines.values[place].packets.first {
            if endsTurn, lines.values[place].deficit < following.octets.count { toTheEnd() }
        } else {
            turns.removeFirst()
            lines.remove(at: place)
        }
        return packet
    }
}
