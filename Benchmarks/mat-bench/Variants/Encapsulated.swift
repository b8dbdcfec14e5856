import BenchSupport
import IMTKernel
import IMTPlan
import MATSignal
import Namespaces

/// The product's encapsulated path in the agent: IMTKernel on both hosts, with a translator between them, and packets in datagrams from port 6289
/// to port 6289. Both agents are on the measured core like everything else.
final class Encapsulated: Installed {
    let ends: Ends
    private var hosts: [KernelHost] = []

    /// - Parameter inner: the family of the HoAs; `isIPv4` is that of the datagrams.
    init(_ network: BenchNetwork, _ cores: Cores, isIPv4: Bool, inner: Bool) throws {
        ends = .hoas(inner)
        let mn = Endpoint(Plan.mnMoA(isIPv4), port: SignalPort.node)
        let seen = Endpoint(BenchNetwork.translated(isIPv4), port: SignalPort.node)
        let cn = Endpoint(Plan.cnMoA(isIPv4), port: SignalPort.node)
        do {
            for (host, own, ownHome, peerHome, far) in [
                (network.mn, mn, Plan.mnHoA, Plan.cnHoA, cn), (network.cn, cn, Plan.cnHoA, Plan.mnHoA, seen),
            ] {
                let homes = [HomeAddress(ownHome(true)), HomeAddress(ownHome(false))]
                let kernel = try KernelHost(host, cores, IMTConfiguration(homeAddresses: homes), isMeasured: true)
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
    }
}
