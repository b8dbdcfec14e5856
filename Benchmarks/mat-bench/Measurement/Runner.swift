import BenchSupport
import Glibc
import MATSignal
import Namespaces

/// Measures cases in rounds.
struct Runner {
    /// Ports of the traffic, one after the other: what connection tracking remembers of an earlier variant's flow would decide
    /// about the next one's.
    static let ports: ClosedRange<UInt16> = 7100...9999
    private var port: UInt16 = ports.upperBound

    let network: BenchNetwork
    let cores: Cores
    let figures: Set<Figure>
    let seconds: Double

    init(network: BenchNetwork, cores: Cores, figures: Set<Figure>, seconds: Double) {
        self.network = network
        self.cores = cores
        self.figures = figures
        self.seconds = seconds
    }

    /// One value of each figure.
    mutating func measure(_ item: Case, _ installed: any Installed) throws -> [Figure: Double] {
        port = port < Self.ports.upperBound ? port + 1 : Self.ports.lowerBound
        let runner = self
        return try onThread { try runner.measureOnThisThread(item, installed) }
    }

    private func measureOnThisThread(_ item: Case, _ installed: any Installed) throws -> [Figure: Double] {
        try cores.pinToMeasured()
        yieldToNobody()
        var result: [Figure: Double] = [:]
        if figures.contains(.packets) {
            let flow = try datagramFlow(item, installed.ends)
            _ = try DatagramTraffic.run(flow, seconds: min(0.1, seconds / 4))
            let elsewhere = installed.processorElsewhere()
            let outcome = try DatagramTraffic.run(flow, seconds: seconds)
            result[.packets] = outcome.packetsPerSecond
            let more = (installed.processorElsewhere() - elsewhere) / Double(max(1, outcome.delivered))
            result[.processor] = outcome.nanosecondsPerPacket + more
            result[.lost] = outcome.lostFraction
        }
        if item.pattern == .pair, figures.contains(.roundTrip) {
            let flow = try datagramFlow(item, installed.ends)
            _ = try RoundTrips.run(flow.sender, flow.receiver, seconds: min(0.05, seconds / 4))
            let outcome = try RoundTrips.run(flow.sender, flow.receiver, seconds: seconds / 2)
            result[.roundTrip] = outcome.median
            result[.roundTrip99] = outcome.p99
        }
        if item.pattern == .pair, figures.contains(.stream) {
            let (sender, receiver) = try connection(installed.ends)
            result[.stream] = try StreamTraffic.run(from: sender, to: receiver, seconds: seconds)
        }
        try installed.check()
        return result
    }

    /// Both ends connected, as a conversation's are; for the patterns with many peers the many-sided end can't be.
    private func datagramFlow(_ item: Case, _ ends: Ends) throws -> DatagramFlow {
        switch item.pattern {
        case .pair:
            let receiver = try socket(on: network.cn, ends.cn)
            let sender = try socket(on: network.mn, ends.mn)
            // The receiver has begun: as an answer no packet waits for what an agent, of which there is none, would say of its sender.
            var octet: UInt8 = 0
            send(receiver.descriptor, &octet, 1, 0)
            return DatagramFlow(sender: sender, receiver: receiver)
        case .out:
            let receiver = try unconnected(on: network.cn, item.isIPv4 ? .unspecifiedIPv4 : .unspecifiedIPv6)
            let sender = try unconnected(on: network.mn, ends.mn.local)
            let address = ends.mn.local == Plan.mnHoA(item.isIPv4) ? Plan.peerHoA : Plan.peerMoA
            return DatagramFlow(
                sender: sender, receiver: receiver, destinations: addresses(item, address).map { SocketAddress($0, port: port) })
        case .into:
            let receiver = try unconnected(on: network.mn, ends.mn.local)
            let sender = try unconnected(on: network.cn, item.isIPv4 ? .unspecifiedIPv4 : .unspecifiedIPv6)
            return DatagramFlow(
                sender: sender, receiver: receiver, destinations: [SocketAddress(Plan.mnMoA(item.isIPv4), port: port)],
                sources: addresses(item, Plan.peerMoA))
        }
    }

    private func addresses(_ item: Case, _ address: (Bool, Int) -> IPAddress) -> [IPAddress] {
        (1...max(1, item.peers - 1)).map { address(item.isIPv4, $0) }
    }

    private func unconnected(on host: Namespace, _ local: IPAddress) throws -> BenchSocket {
        try host.enter()
        let socket = try BenchSocket(local, stream: false)
        try socket.bind(local, port: port)
        return socket
    }

    private func socket(on host: Namespace, _ end: Endpoints) throws -> BenchSocket {
        try host.enter()
        let socket = try BenchSocket(end.local, stream: false)
        try socket.bind(end.local, port: port)
        try socket.connect(end.remote, port: port)
        return socket
    }

    private func connection(_ ends: Ends) throws -> (BenchSocket, BenchSocket) {
        try network.cn.enter()
        let listener = try BenchSocket(ends.cn.local, stream: true)
        try listener.bind(ends.cn.local, port: port)
        listener.set(SOL_SOCKET, SO_RCVBUF, StreamTraffic.bufferOctets)
        try listener.listen()
        try network.mn.enter()
        let sender = try BenchSocket(ends.mn.local, stream: true)
        sender.set(SOL_SOCKET, SO_SNDBUF, StreamTraffic.bufferOctets)
        try sender.bind(ends.mn.local, port: 0)
        try sender.connect(ends.mn.remote, port: port)
        var wait = pollfd(fd: listener.descriptor, events: Int16(POLLIN), revents: 0)
        poll(&wait, 1, 3000)
        guard let receiver = listener.accept() else { throw BenchError("no TCP connection within 3 s") }
        return (sender, receiver)
    }
}
