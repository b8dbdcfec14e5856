import BenchSupport
import Glibc
import IMTKernel
import IMTPlan
import MATSignal
import Namespaces

/// The product's encapsulated path, in the agent or by the kernel's programs: IMTKernel on both hosts, with a translator between them, and packets in datagrams from port 6289
/// to port 6289. Both agents are on the measured core like everything else.
final class Encapsulated: Installed {
    let ends: Ends
    private var hosts: [KernelHost] = []
    /// Where the programs are pinned.
    private var mounted: String?

    /// - Parameters:
    ///   - inner: the family of the HoAs; `isIPv4` is that of the datagrams.
    ///   - place: `.kernel` fails where the kernel can't.
    ///   - usesClassifiers: as on kernels before 6.6.
    init(
        _ network: BenchNetwork, _ cores: Cores, isIPv4: Bool, inner: Bool, in place: EncapsulationPlace = .agent, usesClassifiers: Bool = false
    ) throws {
        ends = .hoas(inner)
        let mn = Endpoint(Plan.mnMoA(isIPv4), port: SignalPort.node)
        let seen = Endpoint(BenchNetwork.translated(isIPv4), port: SignalPort.node)
        let cn = Endpoint(Plan.cnMoA(isIPv4), port: SignalPort.node)
        do {
            if place == .kernel {
                let path = "/tmp/mat-bench-\(getpid())"
                try shell("mkdir -p \(path)")
                try shell("mount -t bpf bpf \(path)")
                mounted = path
            }
            for (host, own, ownHome, peerHome, far) in [
                (network.mn, mn, Plan.mnHoA, Plan.cnHoA, cn), (network.cn, cn, Plan.cnHoA, Plan.mnHoA, seen),
            ] {
                let homes = [HomeAddress(ownHome(true)), HomeAddress(ownHome(false))]
                var configuration = IMTConfiguration(homeAddresses: homes)
                configuration.encapsulation = place
                configuration.usesClassifiers = usesClassifiers
                if let mounted { configuration.programDirectory = mounted + "/mat" }
                let kernel = try KernelHost(host, cores, configuration, isMeasured: true)
                hosts.append(kernel)
                let pair = HomePair(own: HomeAddress(ownHome(inner)), peer: HomeAddress(peerHome(inner)))
                // What a path through a link of 1500 octets carries.
                let carriage = Carriage(.encapsulated(own: own, peer: far), largest: isIPv4 ? 1472 : 1452)
                try kernel.ask { kernel in
                    try kernel.setOwnLocators(try kernel.currentLinks().usable.filter { $0.address == own.address })
                    let socket = try kernel.openEndpoint(port: own.port) { _, _, _ in }
                    // So that the translator has a binding before the other end sends.
                    if own == mn { _ = socket.send([0], from: own.address, to: far) }
                    try kernel.commit([.setOutbound(pair, carriage), .accept(pair, from: [far])])
                }
            }
        } catch {
            remove()
            throw error
        }
    }

    func check() throws { for host in hosts { try host.check() } }
    func processorElsewhere() -> Double { hosts.reduce(0) { $0 + $1.processorNanoseconds() } }

    func remove() {
        for host in hosts { host.stop() }
        hosts = []
        if let mounted { _ = shellStatus("umount \(mounted); rmdir \(mounted)") }
        mounted = nil
    }
}
