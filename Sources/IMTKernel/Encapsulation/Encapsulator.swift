import CLinux
import Glibc
import IMTPlan
import MATCore
import MATRuntime
import MATSignal

/// Puts packets into datagrams and takes them out, between our device and the node's UDP ports (protocol.md section 11.2).
///
///     stack ── mat0 ──► departs ──► PacketSegments ──► DepartureBatch ──► EndpointSocket ──► network
///                          │ no way in EncapsulationTable: held by the caller
///     stack ◄── mat0 ── JoinedArrival ◄── ECN ◄── EncapsulationTable ◄── EndpointSocket ◄── network
///                                          │         │ not from where it should come: to the agent
///                                          └ signalling within the path (`InPathMessage`): to the agent
///
/// Nothing is allocated for a packet, and what is done in a turn of the loop is bounded, so that signalling, which comes by the same sockets,
/// does not wait.
final class Encapsulator {
    /// Sockets at a time: one port for each own MoA that is translated, and 6289.
    static let endpointsMax = 64
    /// How long what is to leave waits for a socket whose buffer is full, before it is dropped.
    private static let stallMax: Duration = .milliseconds(20)
    /// Packets from elsewhere that are told to the agent.
    private static let heldPerSecondMax = 1000
    /// Packets that are held once more because their link has just gone.
    private static let heldAgainPerSecondMax = 200
    /// Messages within paths that the agent is told.
    private static let inPathPerSecondMax = 1000
    /// Sources without an entry that send by an own gateway: each makes one in the kernel.
    private static let gatewaySourcesPerSecondMax = 100
    /// Far endpoints where nobody listens.
    private static let refusingMax = 1024
    /// Peers whose counts outlive their ways.
    private static let carriedMax = 4096

    private let loop: EventLoop
    private let onEvent: (KernelEvent) -> Void
    private(set) var table: EncapsulationTable
    private(set) var drops = EncapsulationDrops()
    private var sockets: [EndpointSocket] = []
    private var departures = DepartureBatch()
    private var arrivals: JoinedArrival
    private var heldRate = RateLimit(perSecond: Encapsulator.heldPerSecondMax)
    private var heldAgainRate = RateLimit(perSecond: Encapsulator.heldAgainPerSecondMax)
    private var gatewayRate = RateLimit(perSecond: Encapsulator.gatewaySourcesPerSecondMax)
    private var inPathRate = RateLimit(perSecond: Encapsulator.inPathPerSecondMax)
    private var carried: [HomePair: PeerCounters] = [:]
    /// Far endpoints whose agent is gone: what their kernel goes on to take are datagrams one by one. Where no link cuts messages up, as between
    /// namespaces or virtual machines of one host, it leaves these to the agent, and answers that nobody listens. Until the agent is heard again.
    private var refusing: Set<Endpoint> = []
    private var stall: (socket: EndpointSocket, timer: TimerID)?

    /// Where packets go that came in datagrams; `nil` while there is none.
    var device: TunnelDevice? { didSet { if let device { arrivals = JoinedArrival(joinsDatagrams: device.joinsDatagrams) } } }
    /// Whether the kernel may hand over several datagrams as one. Not while its programs take datagrams one by one before they get here.
    var joinsArrivals = true { didSet { for socket in sockets { socket.joinsArrivals = joinsArrivals } } }
    /// The MoA that a direct peer's HoA is rewritten to.
    var place: (HomeAddress) -> IPAddress? = { _ in nil }
    /// A port was opened or closed.
    var onPorts: () -> Void = {}
    /// Reading the device has to wait, and may go on.
    var onStall: (Bool) -> Void = { _ in }

    init(loop: EventLoop, configuration: IMTConfiguration, onEvent: @escaping (KernelEvent) -> Void) {
        self.loop = loop
        self.onEvent = onEvent
        table = EncapsulationTable(homes: configuration.homeAddresses, networks: configuration.homePrefixes)
        arrivals = JoinedArrival(joinsDatagrams: false)
    }

    // MARK: Sockets

    func socket(_ port: UInt16) -> EndpointSocket? { sockets.first { $0.port == port } }

    func open(port: UInt16, mark: UInt32, received: @escaping (UnsafeRawBufferPointer, Endpoint, IPAddress) -> Void) throws(SystemError)
        -> EndpointSocket
    {
        guard sockets.count < Self.endpointsMax else { throw SystemError("open UDP port \(port): \(sockets.count) ports are open", errno: EMFILE) }
        var options = BoundSocket.Options()
        options.mark = mark
        // What comes in a burst of 64 KiB datagrams waits there while the loop does something else.
        options.receiveBufferBytes = 4 << 20
        options.exceedsReceiveBound = true
        let socket = try EndpointSocket(loop: loop, port: port, options: options) { [unowned self] octets, source, local in
            heard(source)
            received(octets, source, local)
        }
        socket.joinsArrivals = joinsArrivals
        socket.onPacket = { [unowned self] in arrive($0, at: port) }
        socket.onArrivalsEnd = { [unowned self] in if let device { arrivals.write(to: device) } }
        socket.onError = { [unowned self] in
            let error = asSent($0)
            note(error)
            onEvent(.datagramError(error))
        }
        sockets.append(socket)
        onPorts()
        return socket
    }

    func close(port: UInt16) {
        if stall?.socket.port == port { endStall(dropping: true) }
        socket(port)?.stop()
        sockets.removeAll { $0.port == port }
        onPorts()
    }

    var ports: Set<UInt16> { Set(sockets.map(\.port)) }

    func stop() {
        onPorts = {}
        for socket in sockets { close(port: socket.port) }
        device = nil
    }

    // MARK: The table

    func setHomes(_ homes: [HomeAddress]) { table.setHomes(homes) }

    func apply(_ changes: [IMTChange]) {
        let touched = changes.compactMap { change -> HomePair? in
            switch change {
            case .setOutbound(let pair, _), .removeOutbound(let pair), .accept(let pair, _): pair
            default: nil
            }
        }
        let before = touched.map { table[$0].map { PeerCounters($0) } }
        table.apply(changes)
        // A peer that loses its place keeps its counts, and finds them when it is back.
        for (pair, counts) in zip(touched, before) {
            if let slot = table.slot(of: pair) {
                if counts == nil, let old = carried.removeValue(forKey: pair) { table[slot].add(old) }
            } else if let counts, carried.count < Self.carriedMax {
                carried[pair] = counts
            }
        }
    }

    func setLink(_ pair: HomePair, _ isThere: Bool) { table.setLink(pair, isThere) }

    /// Of packets in datagrams, in octets of the packets.
    func counters() -> [HomePair: PeerCounters] {
        table.peers.reduce(into: carried) { $0[$1.pair] = PeerCounters($1) }
    }

    /// What the ways of these peers have carried.
    func uses(of pairs: [HomePair]) -> [PathUse] { pairs.compactMap { table[$0]?.use } }

    // MARK: Out

    /// Takes a packet from the device.
    /// - Returns: `false` if it has no way in a datagram.
    func departs(_ packet: UnsafeRawBufferPointer, _ offload: OffloadHeader) -> Bool {
        guard !table.isEmpty, let inner = InnerHeader(packet), let slot = table.departure(from: inner.source, to: inner.destination),
            let endpoints = table[slot].endpoints
        else { return false }
        guard let written = PacketSegments.write(packet, offload, into: departures.room) else {
            drops.unfit += 1
            return true
        }
        table[slot].packetsOut += UInt64((written.octets + written.each - 1) / max(1, written.each))
        table[slot].octetsOut += UInt64(written.octets)
        departures.add(
            written,
            DepartureBatch.Way(
                slot: slot, own: endpoints.own, far: endpoints.far, trafficClass: CongestionNotice.outer(of: inner.trafficClass),
                isCutUp: table[slot].isCutUp, isApart: refusing.contains(endpoints.far)))
        return true
    }

    /// Our tables do with errors as with all packets: where an endpoint's address is a direct peer's MoA as well, they have put the HoA in its place.
    private func asSent(_ error: DatagramError) -> DatagramError {
        guard let place = place(HomeAddress(error.far.address)) else { return error }
        var error = error
        error.far = Endpoint(place, port: error.far.port)
        return error
    }

    /// Only what quotes a packet of ours counts: who is not on its path does not know it.
    private func note(_ error: DatagramError) {
        guard error.isRefusal, let pair = error.pair, table[pair]?.endpoints?.far == error.far else { return }
        if refusing.count >= Self.refusingMax { refusing.removeAll() }
        refusing.insert(error.far)
    }

    /// Its agent is there.
    private func heard(_ endpoint: Endpoint) { if !refusing.isEmpty { refusing.remove(endpoint) } }

    var hasRoom: Bool { departures.hasRoom }

    /// Sends what was taken.
    func flush() {
        guard !departures.isEmpty, stall == nil else { return }
        switch departures.send(by: { [unowned self] in socket($0) }, failed: { [unowned self] in failed($0) }) {
        case .done: break
        case .full(let socket): begin(stallAt: socket)
        }
    }

    private func failed(_ failure: DepartureBatch.Failure) {
        drops.unsent += UInt64(failure.segments)
        // Its link has just gone, and nobody here has heard of it: what waits for another way is not lost.
        guard [ENETUNREACH, ENETDOWN, ENODEV, EADDRNOTAVAIL, EINVAL].contains(failure.errno) else { return }
        var place = 0
        while place < failure.octets.count, heldAgainRate.take(at: SystemClock.now().monotonic) {
            let part = failure.octets[place..<min(place + failure.each, failure.octets.count)]
            if let packet = HeldPacket(part) { onEvent(.heldOutbound(packet)) }
            place += max(1, failure.each)
        }
    }

    private func begin(stallAt socket: EndpointSocket) {
        let timer = loop.schedule(after: Self.stallMax) { [unowned self] in endStall(dropping: true) }
        stall = (socket, timer)
        loop.whenWritable(socket.descriptor) { [unowned self] in endStall(dropping: false) }
        onStall(true)
    }

    private func endStall(dropping: Bool) {
        guard let (socket, timer) = stall else { return }
        stall = nil
        loop.cancel(timer)
        loop.whenWritable(socket.descriptor, nil)
        if dropping {
            drops.unsent += UInt64(departures.waitingCount)
            departures.removeAll()
        }
        flush()
        if stall == nil { onStall(false) }
    }

    /// Sends signalling within a path, whatever path applications' packets take. It is never cut up: whether one so large arrives is the question.
    func send(_ message: InPathMessage) -> SystemError? {
        guard let packet = message.packet, let socket = socket(message.own.port) else {
            return SystemError("send to \(message.pair.peer) within the path from \(message.own)", errno: EADDRNOTAVAIL)
        }
        return socket.sendWhole(packet, from: message.own.address, to: message.far, lacksSum: message.lacksSum)
    }

    // MARK: In

    private func arrive(_ datagram: ArrivalBatch.Datagram, at port: UInt16) {
        guard let device, let inner = InnerHeader(UnsafeRawBufferPointer(datagram.octets)) else {
            drops.malformed += 1
            return
        }
        var verdict = table.arrival(from: inner.source, to: inner.destination, by: datagram.source)
        if case .ofGateway(let pair) = verdict {
            if gatewayRate.take(at: SystemClock.now().monotonic) { onEvent(.gatewayArrival(pair, from: datagram.source)) }
            verdict = table.arrival(from: inner.source, to: inner.destination, by: datagram.source)
            if case .ofGateway = verdict {
                drops.elsewhere += 1
                return
            }
        }
        if verdict == .notOurs {
            drops.notOurs += 1
            return
        }
        guard let trafficClass = CongestionNotice.inner(inner.trafficClass, within: datagram.trafficClass) else {
            drops.congested += 1
            return
        }
        if trafficClass != inner.trafficClass { InnerHeader.setTrafficClass(trafficClass, in: datagram.octets) }
        LeftSum.finish(datagram.octets)
        if case .accepted(let slot) = verdict {
            let own = Endpoint(datagram.local, port: port)
            let packet = UnsafeRawBufferPointer(datagram.octets)
            switch InPathMessage.find(in: packet, inner, isForHome: table.isHome(inner.destination), from: datagram.source, to: own) {
            case .application: break
            case .message(let message) where inPathRate.take(at: SystemClock.now().monotonic):
                heard(datagram.source)
                return onEvent(.inPath(message))
            case .message, .damaged:
                drops.signalling += 1
                return
            }
            table[slot].came(from: datagram.source, octets: datagram.octets.count)
            arrivals.add(datagram.octets, to: device)
            return
        }
        guard heldRate.take(at: SystemClock.now().monotonic), let packet = HeldPacket(UnsafeRawBufferPointer(datagram.octets)) else {
            drops.elsewhere += 1
            return
        }
        onEvent(.heldEncapsulated(packet, from: datagram.source, to: Endpoint(datagram.local, port: port)))
    }
}

/// Packets that were dropped, by reason, since the start.
public struct EncapsulationDrops: Hashable, Sendable {
    /// What came and was not exactly one IP packet.
    public var malformed: UInt64 = 0
    /// What came for no HoA of this node.
    public var notOurs: UInt64 = 0
    /// What came with the network's mark of congestion for a sender that knows nothing of it (RFC 6040).
    public var congested: UInt64 = 0
    /// What came from an endpoint that its sender is not known at, beyond what the agent is told.
    public var elsewhere: UInt64 = 0
    /// Signalling within a path that was damaged or nothing known, or beyond what the agent is told.
    public var signalling: UInt64 = 0
    /// What was to leave and was not what the stack said of it.
    public var unfit: UInt64 = 0
    /// What was to leave, and the kernel did not take.
    public var unsent: UInt64 = 0
}

extension EncapsulationTable.Peer {
    fileprivate mutating func add(_ counts: PeerCounters) {
        packetsOut &+= counts.packetsOut
        packetsIn &+= counts.packetsIn
        octetsOut &+= counts.octetsOut
        octetsIn &+= counts.octetsIn
    }
}

extension PeerCounters {
    fileprivate init(_ peer: EncapsulationTable.Peer) {
        self.init(packetsOut: peer.packetsOut, packetsIn: peer.packetsIn, octetsOut: peer.octetsOut, octetsIn: peer.octetsIn)
    }

    static func + (a: PeerCounters, b: PeerCounters) -> PeerCounters {
        PeerCounters(
            packetsOut: a.packetsOut &+ b.packetsOut, packetsIn: a.packetsIn &+ b.packetsIn, octetsOut: a.octetsOut &+ b.octetsOut,
            octetsIn: a.octetsIn &+ b.octetsIn)
    }
}
