import Glibc
import MATSignal

/// Measures cases in rounds.
struct Runner {
    static let port: UInt16 = 7100

    let network: BenchNetwork
    let cores: Cores
    let figures: Set<Figure>
    let seconds: Double
    let peersMax: Int

    /// One value of each figure.
    func measure(_ item: Case, _ installed: any Installed) throws -> [Figure: Double] {
        try onThread {
            try cores.pinToMeasured()
            // Others' work on this core waits for ours as far as an ordinary process may ask for that.
            setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, -20)
            var result: [Figure: Double] = [:]
            if figures.contains(.packets) {
                let flow = try datagramFlow(item, installed.ends)
                _ = try DatagramTraffic.run(flow, seconds: min(0.1, seconds / 4))
                let outcome = try DatagramTraffic.run(flow, seconds: seconds)
                result[.packets] = outcome.packetsPerSecond
                result[.processor] = outcome.nanosecondsPerPacket
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
    }

    /// Both ends connected, as a conversation's are; for the patterns with many peers the many-sided end can't be.
    private func datagramFlow(_ item: Case, _ ends: Ends) throws -> DatagramFlow {
        switch item.pattern {
        case .pair:
            let receiver = try socket(on: network.cn, ends.cn)
            let sender = try socket(on: network.mn, ends.mn)
            return DatagramFlow(sender: sender, receiver: receiver)
        case .out:
            try network.cn.enter()
            let receiver = try BenchSocket(ends.cn.local, stream: false)
            try receiver.bind(item.isIPv4 ? .unspecifiedIPv4 : .unspecifiedIPv6, port: Self.port)
            try network.mn.enter()
            let sender = try BenchSocket(ends.mn.local, stream: false)
            try sender.bind(ends.mn.local, port: Self.port)
            let address = ends.mn.local == Plan.mnHoA(item.isIPv4) ? Plan.peerHoA : Plan.peerMoA
            return DatagramFlow(
                sender: sender, receiver: receiver,
                destinations: (1...max(1, item.peers - 1)).map { SocketAddress(address(item.isIPv4, $0), port: Self.port) })
        case .into:
            throw BenchError("not yet")
        }
    }

    private func socket(on host: BenchNamespace, _ end: Endpoints) throws -> BenchSocket {
        try host.enter()
        let socket = try BenchSocket(end.local, stream: false)
        try socket.bind(end.local, port: Self.port)
        try socket.connect(end.remote, port: Self.port)
        return socket
    }

    private func connection(_ ends: Ends) throws -> (BenchSocket, BenchSocket) {
        try network.cn.enter()
        let listener = try BenchSocket(ends.cn.local, stream: true)
        try listener.bind(ends.cn.local, port: Self.port)
        listener.set(SOL_SOCKET, SO_RCVBUF, StreamTraffic.bufferOctets)
        try listener.listen()
        try network.mn.enter()
        let sender = try BenchSocket(ends.mn.local, stream: true)
        sender.set(SOL_SOCKET, SO_SNDBUF, StreamTraffic.bufferOctets)
        try sender.bind(ends.mn.local, port: 0)
        try sender.connect(ends.mn.remote, port: Self.port)
        var wait = pollfd(fd: listener.descriptor, events: Int16(POLLIN), revents: 0)
        poll(&wait, 1, 3000)
        guard let receiver = listener.accept() else { throw BenchError("no TCP connection within 3 s") }
        return (sender, receiver)
    }
}
