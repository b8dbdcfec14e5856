import BenchSupport
import IMTKernel
import IMTPlan
import MATSignal
import Namespaces

/// The product: IMTKernel started on both hosts as the agent starts it, and the entries the agent would commit.
final class Ours: Installed {
    let ends: Ends
    private var hosts: [KernelHost] = []
    /// What stands for programs that `mat run` started.
    private var programs: [Child] = []

    /// - Parameters:
    ///   - peers: entries on each host, CN's or MN's among them. The others' packets come and go as the pattern says.
    ///   - onlyMN: CN stays a plain host, which owns all the peers' MoAs.
    ///   - plain: the two hosts do not know each other as peers, and talk between their MoAs.
    ///   - steers: a program on each host has other addresses than the traffic that is measured.
    init(
        _ network: BenchNetwork, _ cores: Cores, peers: Int, isIPv4: Bool, onlyMN: Bool = false, plain: Bool = false, steers: Bool = false,
        dataPlane: IMTPlan.DataPlane = .nftables
    ) throws {
        ends = plain ? .moas(isIPv4) : .hoas(isIPv4)
        do {
            hosts.append(try Self.start(network.mn, cores, own: Plan.mnHoA, at: Plan.mnMoA, dataPlane))
            try Self.fill(
                hosts[0], own: Plan.mnHoA(isIPv4), at: Plan.mnMoA(isIPv4), peer: Plan.cnHoA(isIPv4), Plan.cnMoA(isIPv4), peers, plain)
            if steers { try steer(hosts[0]) }
            guard !onlyMN else { return }
            hosts.append(try Self.start(network.cn, cores, own: Plan.cnHoA, at: Plan.cnMoA, dataPlane))
            try Self.fill(
                hosts[1], own: Plan.cnHoA(isIPv4), at: Plan.cnMoA(isIPv4), peer: Plan.mnHoA(isIPv4), Plan.mnMoA(isIPv4), peers, plain)
            if steers { try steer(hosts[1]) }
        } catch {
            remove()
            throw error
        }
    }

    private func steer(_ host: KernelHost) throws {
        let program = try Child(["/bin/sleep", "3600"])
        programs.append(program)
        guard let handle = ProcessHandle(program.pid) else { throw BenchError("the program has ended") }
        try host.ask { try $0.steer(handle, via: .plain) }
    }

    /// The hosts' kernel sides, MN's first, for measurements of changes.
    var mn: KernelHost { hosts[0] }

    func check() throws { for host in hosts { try host.check() } }

    func remove() {
        for program in programs { program.end() }
        programs = []
        for host in hosts { host.stop() }
        hosts = []
    }

    private static func start(
        _ host: Namespace, _ cores: Cores, own: (Bool) -> IPAddress, at moa: (Bool) -> IPAddress, _ dataPlane: IMTPlan.DataPlane
    ) throws -> KernelHost {
        let homes = [HomeAddress(own(true)), HomeAddress(own(false))]
        var configuration = IMTConfiguration(homeAddresses: homes)
        configuration.dataPlane = dataPlane
        let kernel = try KernelHost(host, cores, configuration)
        let locators = [moa(true), moa(false)]
        do {
            try kernel.ask { try $0.setOwnLocators(try $0.currentLinks().usable.filter { locators.contains($0.address) }) }
        } catch {
            kernel.stop()
            throw error
        }
        return kernel
    }

    private static func fill(
        _ host: KernelHost, own: IPAddress, at moa: IPAddress, peer: IPAddress, _ peerMoA: IPAddress, _ peers: Int,
        _ plain: Bool
    ) throws {
        var changes: [IMTChange] = [.setOwn(MobileAddress(moa), HomeAddress(own))]
        func add(_ home: IPAddress, _ mobile: IPAddress) {
            let pair = HomePair(own: HomeAddress(own), peer: HomeAddress(home))
            changes.append(.setOutbound(pair, .rewritten(MobilePair(own: MobileAddress(moa), peer: MobileAddress(mobile)))))
            changes.append(.setInbound(peer: MobileAddress(mobile), pair))
        }
        if plain { changes.append(.setPlain(peerMoA, lifetime: .seconds(3600))) } else { add(peer, peerMoA) }
        // Of plain traffic none is with any of them.
        for number in 1..<max(1, plain ? peers + 1 : peers) { add(Plan.peerHoA(own.isIPv4, number), Plan.peerMoA(own.isIPv4, number)) }
        let all = changes
        try host.ask { try $0.commit(all) }
    }
}
