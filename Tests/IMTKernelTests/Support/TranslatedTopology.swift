import Glibc
import IMTKernel
import IMTPlan
import MATSignal
import Namespaces
import Synchronization

/// Topology's drawing, with a translator in the router: cn sees mn's datagrams from the router's address, and from other ports than mn's; and
/// nothing gets to mn that has not been asked for.
///
///     mn  wlan 10.1.0.2:6289  ──►  10.9.0.1:40001  ──►  10.9.0.2:6289  cn
///              2001:db8:1::2       2001:db8:9::1        2001:db8:9::2
final class TranslatedTopology {
    let net: Topology
    var mn: Host { net.mn }
    var cn: Host { net.cn }
    /// What came to each as signalling.
    let atMN = Received(), atCN = Received()

    static let port: UInt16 = 40_001

    final class Received: Sendable {
        private let all = Mutex<[(octets: [UInt8], from: Endpoint)]>([])
        func add(_ octets: [UInt8], _ from: Endpoint) { all.withLock { $0.append((octets, from)) } }
        func take() -> [(octets: [UInt8], from: Endpoint)] {
            all.withLock { all in
                defer { all = [] }
                return all
            }
        }
    }

    /// Where packets are put into datagrams and taken out, on mn and on cn.
    enum Places: CaseIterable, Sendable {
        case agents, kernels
        /// Of the sender of most tests, and of its peer.
        case kernelOfMN, kernelOfCN
        /// By classifiers, as before Linux 6.6.
        case classifiers

        static let both = [Places.agents, .kernels]

        var ofMN: Bool { self == .kernels || self == .kernelOfMN || self == .classifiers }
        var ofCN: Bool { self == .kernels || self == .kernelOfCN || self == .classifiers }
    }
    let places: Places
    /// Where programs are pinned; goes with this value.
    private let programs: ProgramMount?

    /// What a host is started with, as `init` does it.
    func placed(_ configuration: IMTConfiguration, _ isKernel: Bool) -> IMTConfiguration {
        guard let programs else { return configuration }
        var configuration = configuration
        configuration.programDirectory = programs.path + "/mat"
        configuration.encapsulation = isKernel ? .kernel : .agent
        configuration.usesClassifiers = places == .classifiers
        return configuration
    }

    init(_ places: Places = .agents, configuration: (inout IMTConfiguration) -> Void = { _ in }) throws {
        self.places = places
        programs = places == .agents ? nil : try ProgramMount()
        net = try Topology()
        for (table, icmp) in [("ip", "icmp"), ("ip6", "icmpv6")] {
            try net.router.run(
                "nft -f -",
                input: """
                    table \(table) translator {
                        chain post {
                            type nat hook postrouting priority 100;
                            oifname "r9" meta l4proto udp udp sport 6289 masquerade to :\(Self.port)
                            oifname "r9" masquerade
                        }
                        chain forward {
                            type filter hook forward priority 0; policy drop;
                            ct state established,related accept
                            iifname "r1" accept
                            iifname "r2" accept
                            meta l4proto \(icmp) accept
                        }
                    }
                    """)
        }
        for (host, var made, links, received) in [
            (net.mn, Topology.mnConfiguration, ["wlan", "cell"], atMN), (net.cn, Topology.cnConfiguration, ["eth0"], atCN),
        ] {
            configuration(&made)
            let isKernel = host === net.mn ? places.ofMN : places.ofCN
            try host.start(placed(made, isKernel))
            guard try host.ask({ $0.encapsulatesInKernel }) == isKernel else { throw ShellError("no programs: \(host.warnings)") }
            try host.useLocators(on: links)
            try host.open(received)
        }
    }

    /// The endpoints that each has of the other in an outer family, and its own.
    static func endpoints(_ outer: Family) -> (mn: Endpoint, seen: Endpoint, cn: Endpoint) {
        (Endpoint(outer.wlan, port: 6289), Endpoint(outer.farRouter, port: port), Endpoint(outer.far, port: 6289))
    }

    /// mn shows itself to cn, as it does before there is a path: a translator that sees the other's datagram first would take another port.
    func bind(_ outer: Family) throws {
        let (own, _, far) = Self.endpoints(outer)
        try mn.send([1, 2, 3], from: own, to: far)
    }

    /// Packets between the HoAs of the inner family travel between endpoints of the outer one, in both directions.
    func encapsulate(_ inner: Family, in outer: Family, largest: UInt32 = Carriage.mtuAtFirst) throws {
        let (own, seen, far) = Self.endpoints(outer)
        try bind(outer)
        try mn.encapsulate(inner.own, inner.peer, from: own, to: far, largest: largest)
        try cn.encapsulate(inner.peer, inner.own, from: far, to: seen, largest: largest)
    }
}

/// A file system of BPF objects of a test's own.
final class ProgramMount {
    private static let count = Mutex(0)
    let path: String

    init() throws {
        let number = Self.count.withLock { count in
            count += 1
            return count
        }
        path = "/tmp/imtk-\(getpid())-\(number)bpf"
        try shell("mkdir -p \(path)")
        try shell("mount -t bpf bpf \(path)")
    }

    deinit { _ = shellStatus("umount \(path); rmdir \(path)") }
}

extension Host {
    /// Opens port 6289, which everything in datagrams comes by.
    func open(_ received: TranslatedTopology.Received) throws {
        try ask { kernel in
            _ = try kernel.openEndpoint(port: SignalPort.node) { octets, source, _ in received.add(Array(octets), source) }
        }
    }

    func send(_ octets: [UInt8], from own: Endpoint, to far: Endpoint) throws {
        try ask { kernel in
            if let error = kernel.endpoint(port: own.port)?.send(octets, from: own.address, to: far) { throw error }
        }
    }

    func encapsulate(
        _ own: IPAddress, _ peer: IPAddress, from: Endpoint, to far: Endpoint, largest: UInt32 = Carriage.mtuAtFirst
    ) throws {
        let pair = HomePair(own: HomeAddress(own), peer: HomeAddress(peer))
        try ask {
            try $0.commit([.setOutbound(pair, Carriage(.encapsulated(own: from, peer: far), largest: largest)), .accept(pair, from: [far])])
        }
    }
}
