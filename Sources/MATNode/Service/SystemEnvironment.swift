import IMTKernel
import IMTPlan
import Logging
import MATCore
import MATDNS
import MATRuntime
import MATSignal
import NodeCore

/// The machine that a node's shell runs on: kernel, socket, resolver, files, clock and log.
final class SystemEnvironment: NodeEnvironment {
    let kernel: IMTKernel
    let names: NodeNames
    private let loop: EventLoop
    var logger: Logger
    private let state: StateDirectory
    private let lookup: IMSLookup
    private var socket: EndpointSocket?
    /// Own addresses whose datagrams leave from another port.
    private var ports: [IPAddress: UInt16] = [:]
    private var timers: [NodeTimer: TimerID] = [:]
    private var random = SystemRandomNumberGenerator()
    /// Who is told.
    weak var shell: NodeShell?
    /// Tells programs what they get.
    var onAnswer: (VisitingProgram, VisitAnswer) -> Void = { _, _ in }

    init(loop: EventLoop, logger: Logger, kernel: IMTKernel, names: NodeNames, state: StateDirectory) {
        self.loop = loop
        self.logger = logger
        self.kernel = kernel
        self.names = names
        self.state = state
        lookup = IMSLookup(resolver: names.resolver)
        names.resolver.ways = { [unowned self] server in
            ways(to: server)
        }
    }

    private func ways(to server: ResolverConfiguration.Server) -> [IPAddress?] {
        NodeNames.ways(to: server, own: shell?.node.ownAddresses ?? [], hasOwnRoute: kernel.hasOwnRoute)
    }

    // MARK: Time

    var now: Now { SystemClock.now() }
    var isClockSynchronized: Bool { SystemClock.isSynchronized }

    func set(_ timer: NodeTimer, at time: MonotonicTime?) {
        if let old = timers.removeValue(forKey: timer) { loop.cancel(old) }
        guard let time else { return }
        timers[timer] = loop.schedule(at: time) { [unowned self] in
            timers[timer] = nil
            shell?.timerFired(timer)
        }
    }

    // MARK: Network

    func openSocket() throws(SystemError) { socket = try open(SignalPort.node) }

    private func open(_ port: UInt16) throws(SystemError) -> EndpointSocket {
        try kernel.openEndpoint(port: port) { [unowned self] octets, source, local in
            let datagram = Array(octets)
            shell?.run { node, now in node.received(datagram, from: source, to: local, now: now) }
        }
    }

    func closeSocket() {
        socket = nil
        for port in Set(ports.values).union([SignalPort.node]) { kernel.closeEndpoint(port: port) }
        ports = [:]
    }

    func use(port: UInt16, for own: IPAddress) -> Bool {
        let before = ports[own]
        if port != SignalPort.node, kernel.endpoint(port: port) == nil {
            do throws(SystemError) {
                _ = try open(port)
            } catch {
                logger.warning("\(error); \(own) goes on with port \(before ?? SignalPort.node)")
                return false
            }
        }
        ports[own] = port == SignalPort.node ? nil : port
        if let before, !ports.values.contains(before) { kernel.closeEndpoint(port: before) }
        return true
    }

    func send(_ datagram: [UInt8], from own: IPAddress, to target: Endpoint, ifRoom: Bool) {
        guard let socket = ports[own].flatMap({ kernel.endpoint(port: $0) }) ?? socket else { return }
        // Lost is lost: whatever matters is sent again. The reason is for someone who debugs.
        if let error = ifRoom ? socket.sendIfRoom(datagram, from: own, to: target) : socket.send(datagram, from: own, to: target) {
            logger.debug("\(error)")
        }
    }

    func sendInPath(_ message: InPathMessage) {
        if let error = kernel.sendInPath(message) { logger.debug("\(error)") }
    }

    func lookUp(_ hoa: HomeAddress, _ completion: @escaping (ServerLookup) -> Void) {
        lookup.lookup(hoa) { [weak self] result in
            if let self { completion(servers(result)) }
        }
    }

    func lookUpKeys(_ prefix: IPPrefix, _ completion: @escaping (ServerLookup) -> Void) {
        lookup.lookup(prefix: prefix) { [weak self] result in
            if let self { completion(servers(result)) }
        }
    }

    private func servers(_ result: IMSLookupResult) -> ServerLookup {
        switch result {
        case .found(let set):
            .found(
                ServerSet(
                    endpoints: set.ordered(using: &random).flatMap(\.endpoints), keys: set.keys.compactMap(PublicKey.init), relays: set.relays,
                    expires: set.expires,
                    isValidated: set.isAuthenticated && names.validatesHere))
        case .absent(let until): .absent(lifetime: max(.seconds(1), until - SystemClock.now().monotonic))
        case .failed(let reason): .failed(reason)
        case .unusable(let reason): .unusable(reason)
        }
    }

    func findTranslator(_ completion: @escaping (NAT64Answer) -> Void) {
        names.findTranslator(loop, ways: { [unowned self] in ways(to: $0) }, completion)
    }

    func readNames() -> (servers: NameServers, areOthers: Bool) {
        let areOthers = names.networkChanged()
        return (names.servers, areOthers)
    }

    // MARK: Kernel

    func commit(_ changes: [IMTChange], linkAddresses: [LocalAddress]?) {
        do throws(KernelError) {
            try kernel.commit(changes, locators: linkAddresses)
        } catch {
            logger.error("\(error)")
        }
    }

    func release(_ offer: HeldOffer, from home: HomeAddress?) -> HeldExit {
        let destination = offer.destination.address
        if offer.needsEntry {
            guard let home, kernel.hasEntry(from: home, for: destination) else { return .noEntry }
        }
        // An IPv6 route whose gateway does not answer is passed over for the one into our device: what the kernel would hold again is refused.
        let canLeave = home.map { kernel.canLeave(from: $0, to: destination) } ?? kernel.canLeave(to: destination)
        guard canLeave else { return .noWay }
        return .sent(offer.packets.firstIndex { !kernel.releaseOutbound($0) } ?? offer.packets.count)
    }

    func pass(_ packets: [HeldPacket], to destination: IPAddress, by interface: String?) {
        let link = kernel.hasOwnRoute(to: destination) ? nil : interface
        for packet in packets { kernel.passOutbound(packet, by: link) }
    }

    func deliver(_ packets: [HeldPacket]) {
        for packet in packets { kernel.releaseInbound(packet) }
    }

    func enter(_ home: HomeAddress) {
        do throws(KernelError) {
            try kernel.enter(home)
        } catch {
            // Its programs find out when they bind it.
            logger.error("\(error)")
        }
    }

    func leave(_ home: HomeAddress) {
        do throws(KernelError) {
            try kernel.leave(home)
        } catch {
            logger.error("\(error)")
        }
    }

    func answer(_ program: VisitingProgram, _ answer: VisitAnswer) { onAnswer(program, answer) }

    func packetCounts() -> [HomePair: PeerPackets] { counters().mapValues(\.packets) }

    func awaitUse(_ isOn: Bool) -> Bool {
        do throws(KernelError) {
            return try kernel.awaitUse(isOn)
        } catch {
            logger.warning("\(error)")
            return false
        }
    }

    func pathUses(of pairs: [HomePair]) -> [PathUse] { kernel.pathUses(of: pairs) }

    func rewrittenUses(of paths: [RewrittenPath]) -> [RewrittenUse] { kernel.rewrittenUses(of: paths) }

    /// Empty if the kernel does not tell.
    func counters() -> [HomePair: PeerCounters] {
        do throws(KernelError) {
            return try kernel.peerCounters()
        } catch {
            logger.warning("\(error)")
            return [:]
        }
    }

    /// Likewise empty.
    func plainDatagramFlows(to addresses: Set<IPAddress>) -> [PlainFlow] {
        do throws(KernelError) {
            return try kernel.plainDatagramFlows(to: addresses)
        } catch {
            logger.warning("\(error)")
            return []
        }
    }

    // MARK: Files

    func keep(sequence: UInt64, of hoa: HomeAddress) {
        do throws(SystemError) {
            try state.keep(sequence, of: hoa)
        } catch {
            logger.error("the sequence of \(hoa) can't be kept: \(error)")
        }
    }

    func keep(_ certificate: Certificate) {
        do throws(SystemError) {
            try HomeFiles.keep(certificate, in: state)
        } catch {
            logger.error("the renewed certificate of \(certificate.hoa) can't be kept: \(error)")
        }
    }

    func log(_ level: NodeLogLevel, _ text: String) { logger.log(level: Self.level(level), "\(text)") }

    private static func level(_ level: NodeLogLevel) -> Logger.Level {
        switch level {
        case .debug: .debug
        case .info: .info
        case .notice: .notice
        case .warning: .warning
        case .error: .error
        }
    }
}

extension PeerCounters {
    var packets: PeerPackets { PeerPackets(sent: packetsOut, came: packetsIn) }
}
