import IMTKernel
import MATCore
import MATRuntime
import MATSignal
import RelayCore

// The role of a gateway: its device, what the kernel has to do for it, and what has to be said about the host.

extension RelayService {
    /// Makes the gateway's device and has HoAs routed into it, if the configuration has a gateway.
    func makeGatewayDevice() throws(RelayError) {
        guard let gateway = configuration.gateway else { return }
        do throws(KernelError) {
            if gateway.turnsForwardingOn {
                for family in gateway.families where !KernelForwarding.isOn(family) {
                    try KernelForwarding.turnOn(family)
                    logger.notice("\(KernelForwarding.name(family)) is on now")
                }
            }
            let device = try GatewayDevice(name: gateway.device.name)
            try device.apply(gateway.device)
            gatewayDevice = device
        } catch {
            throw RelayError("gateway: \(error)")
        }
        for problem in gateway.problems(own: LocalAddresses.now()) { logger.warning("gateway: \(problem)") }
    }

    /// Has the kernel route and translate what the configuration says now.
    func applyGateway() {
        guard let gatewayDevice, let gateway = configuration.gateway else { return }
        do throws(KernelError) {
            try gatewayDevice.apply(gateway.device)
        } catch {
            logger.error("gateway: \(error); what was before stays in force as far as it was not changed")
        }
        for problem in gateway.problems(own: LocalAddresses.now()) { logger.warning("gateway: \(problem)") }
    }
}

extension RelayConfiguration.Gateway {
    var families: [AddressFamily] {
        AddressFamily.allCases.filter { family in (device.routed + device.translated).contains { $0.family == family } }
    }

    /// What keeps the gateway from working, outside of the configuration's own text.
    ///
    /// - Parameter isForwardingTurnedOn: by the program itself, when it starts.
    func problems(own: Set<IPAddress>, isForwardingTurnedOn: Bool = false) -> [String] {
        var problems: [String] = []
        for family in families where !isForwardingTurnedOn && !KernelForwarding.isOn(family) {
            let name = KernelForwarding.name(family)
            let sideEffect = family == .ipv6 ? " (then links take no router advertisements unless accept_ra is 2)" : ""
            problems.append(
                "this host does not forward \(family == .ipv4 ? "IPv4" : "IPv6"): set \(name)=1\(sideEffect), or write forwarding: set under gateway:"
            )
        }
        for prefix in (device.routed + device.translated).sorted() {
            guard let address = own.filter({ prefix.contains($0) }).min() else { continue }
            problems.append(
                "\(prefix) has the host's own address \(address): home addresses must be of a prefix that is on none of the gateway's links")
        }
        return problems
    }
}
