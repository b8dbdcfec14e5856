import HeapModule
import MATSignal

/// What travels between addresses.
public struct SimulatedPacket: Sendable {
    public enum Content: Sendable {
        /// A signalling datagram, between these ports.
        case signal([UInt8], sourcePort: UInt16, destinationPort: UInt16)
        case user(UserPacket)
        /// A packet between HoAs in a datagram between endpoints.
        case encapsulated(InnerPacket, sourcePort: UInt16, destinationPort: UInt16)
    }

    /// What travels in a datagram (protocol.md section 11.2).
    public struct InnerPacket: Sendable {
        public var source: IPAddress
        public var destination: IPAddress
        public var packet: UserPacket
        /// What one agent says to the other in it; `nil`: it is an application's.
        public var message: [UInt8]?

        /// In-path signalling (protocol.md section 11).
        public init(from source: IPAddress, to destination: IPAddress, message: [UInt8]) {
            self.init(from: source, to: destination, .message)
            self.message = message
        }

        public init(from source: IPAddress, to destination: IPAddress, _ packet: UserPacket) {
            self.source = source
            self.destination = destination
            self.packet = packet
        }
    }

    public var source: IPAddress
    public var destination: IPAddress
    public var content: Content

    public init(from source: IPAddress, to destination: IPAddress, _ content: Content) {
        self.source = source
        self.destination = destination
        self.content = content
    }
}

extension SimulatedPacket {
    /// As far as it has a size.
    var octets: Int {
        guard case .encapsulated(let inner, _, _) = content, let message = inner.message else { return 0 }
        return message.count + (inner.source.isIPv4 ? 28 : 48) + (source.isIPv4 ? 28 : 48)
    }
}

/// Something with addresses in the network.
public protocol SimulatedHost: AnyObject {
    func receive(_ packet: SimulatedPacket)
}

/// What the network does to packets. Latency is drawn from a range for each packet, so packets overtake each other.
public struct NetworkConditions: Sendable {
    public var latency: ClosedRange<Duration>
    /// 0...1 for each packet.
    public var loss: Double
    public var duplication: Double

    public init(latency: ClosedRange<Duration> = .milliseconds(10) ... .milliseconds(10), loss: Double = 0, duplication: Double = 0) {
        self.latency = latency
        self.loss = loss
        self.duplication = duplication
    }
}

/// Hosts that exchange packets in virtual time. Nothing happens but through `run`; the same seed gives the same run.
///
/// ```
///   send ──► source still there? ──► cut? lost? ──► latency drawn ──► event queue ──► destination there now? ──► receive
///                                              └──► perhaps once more (duplication), with another latency
/// ```
public final class SimulatedNetwork {
    /// Events of one run: a loop of messages must end a test, not hang it.
    public static let eventsMax = 5_000_000

    public private(set) var clock = VirtualClock()
    public var conditions: NetworkConditions
    /// Conditions of single links, by the addresses of both directions' ends.
    public var linkConditions: [Link: NetworkConditions] = [:]
    /// Whether packets between two addresses are lost for now; set it for a partition, clear it to heal.
    public var isCut: (IPAddress, IPAddress) -> Bool = { _, _ in false }
    /// Likewise, by the packet: for messages that are to be lost whoever sends them.
    public var isLost: (SimulatedPacket) -> Bool = { _ in false }
    /// What paths carry, in octets with the outer header; applications' packets have no size here, so only in-path messages can be too large.
    public var largest = 1500
    public var random: SeededGenerator
    /// Every packet that was sent, before any loss: what a capture at the sender shows.
    public var onSend: ((SimulatedPacket, MonotonicTime) -> Void)?
    /// What each node's and server's core decided, in order, as text.
    public var onAction: ((String) -> Void)?
    public private(set) var packetsSent = 0
    public private(set) var packetsLost = 0

    private var hosts: [IPAddress: any SimulatedHost] = [:]
    /// What stands before addresses.
    private var translators: [(prefix: IPPrefix, translator: SimulatedTranslator)] = []
    private var queue = EventQueue()
    private var eventsCount = 0

    public struct Link: Hashable, Sendable {
        let a: IPAddress
        let b: IPAddress

        public init(_ one: IPAddress, _ other: IPAddress) {
            a = min(one, other)
            b = max(one, other)
        }
    }

    public init(seed: UInt64, conditions: NetworkConditions = NetworkConditions()) {
        random = SeededGenerator(seed: seed)
        self.conditions = conditions
    }

    public var now: Now { clock.now }
    public var time: MonotonicTime { clock.time }

    // MARK: Hosts

    /// Gives the host an address, taking it from whoever had it.
    public func attach(_ host: any SimulatedHost, at address: IPAddress) {
        hosts[address] = host
        translator(before: address)?.enter(host, at: address)
    }

    public func detach(_ address: IPAddress) {
        hosts[address] = nil
        translator(before: address)?.leave(address)
    }

    /// Puts a translator or firewall before these addresses.
    public func put(_ translator: SimulatedTranslator, before prefix: IPPrefix) { translators.append((prefix, translator)) }

    private func translator(before address: IPAddress) -> SimulatedTranslator? { translators.first { $0.prefix.contains(address) }?.translator }

    public func host(at address: IPAddress) -> (any SimulatedHost)? { hosts[address] }

    // MARK: Packets

    public func send(_ packet: SimulatedPacket, by host: any SimulatedHost) {
        // A host sends only from an address that it has: a network drops what else it might try.
        guard hosts[packet.source] === host else { return }
        packetsSent += 1
        onSend?(packet, time)
        let packet: SimulatedPacket? =
            if let translator = translator(before: packet.source), translator !== self.translator(before: packet.destination) {
                translator.translate(packet, now: time)
            } else {
                packet
            }
        guard let packet else {
            packetsLost += 1
            return
        }
        let conditions = linkConditions[Link(packet.source, packet.destination)] ?? conditions
        let copies = random.chance(conditions.duplication) ? 2 : 1
        for _ in 0..<copies {
            guard packet.octets <= largest, !isCut(packet.source, packet.destination), !isLost(packet), !random.chance(conditions.loss) else {
                packetsLost += 1
                continue
            }
            after(draw(conditions.latency)) { [unowned self] in arrive(packet) }
        }
    }

    private func arrive(_ packet: SimulatedPacket) {
        if let translator = translator(before: packet.destination), translator !== self.translator(before: packet.source) {
            guard translator.admits(packet) else { return }
        }
        hosts[packet.destination]?.receive(packet)
    }

    private func draw(_ range: ClosedRange<Duration>) -> Duration {
        let low = range.lowerBound.nanosecondsSaturated
        let high = range.upperBound.nanosecondsSaturated
        return .nanoseconds(low == high ? low : Int64.random(in: low...high, using: &random))
    }

    // MARK: Time

    /// Does something later, in virtual time.
    public func after(_ delay: Duration, _ action: @escaping () -> Void) { at(time + delay, action) }

    public func at(_ moment: MonotonicTime, _ action: @escaping () -> Void) { queue.add(max(moment, time), action) }

    /// Lets this much time pass.
    public func run(for duration: Duration) { run(until: time + duration) }

    /// Lets time pass until this moment.
    public func run(until end: MonotonicTime) {
        while step(before: end) {}
        clock.advance(to: end)
    }

    /// Lets time pass until the condition holds, looking after each event.
    ///
    /// - Returns: whether it held within the time.
    @discardableResult
    public func drive(max limit: Duration, until condition: () -> Bool) -> Bool {
        let end = time + limit
        while !condition() {
            guard step(before: end) else {
                clock.advance(to: end)
                return condition()
            }
        }
        return true
    }

    private func step(before end: MonotonicTime) -> Bool {
        guard let next = queue.next, next <= end else { return false }
        eventsCount += 1
        precondition(eventsCount < Self.eventsMax, "more than \(Self.eventsMax) events: messages go in a circle")
        clock.advance(to: next)
        queue.takeFirst()?()
        return true
    }
}

/// Events by time, and by the order in which they were added among equals.
private struct EventQueue {
    private struct Event: Comparable {
        let time: MonotonicTime
        let order: UInt64
        let action: () -> Void

        static func < (a: Event, b: Event) -> Bool { (a.time, a.order) < (b.time, b.order) }
        static func == (a: Event, b: Event) -> Bool { a.order == b.order }
    }

    private var heap = Heap<Event>()
    private var added: UInt64 = 0

    var next: MonotonicTime? { heap.min?.time }

    mutating func add(_ time: MonotonicTime, _ action: @escaping () -> Void) {
        added += 1
        heap.insert(Event(time: time, order: added, action: action))
    }

    mutating func takeFirst() -> (() -> Void)? { heap.popMin()?.action }
}

extension VirtualClock: CustomStringConvertible {
    public var description: String { "\(time.nanoseconds / 1_000_000) ms" }
}
