import IMTPlan
import MATRuntime

/// Knows whether the host has IPsec policies. Only then do packets meet the rule that leaves alone what is still to be encrypted.
final class PolicyMonitor {
    private struct News: NetlinkNews {
        var isEmpty = true
        mutating func add(_ event: NetlinkIncoming) { isEmpty = false }
        mutating func addLoss() { isEmpty = false }
    }

    private let socket: NetlinkSocket
    private let monitor: NetlinkMonitor<News>

    init(loop: EventLoop, onChange: @escaping () -> Void) throws(KernelError) {
        socket = try NetlinkSocket(protocol: KernelValues.netlinkXFRM, name: "IPsec policies")
        monitor = try NetlinkMonitor(
            loop: loop, protocol: KernelValues.netlinkXFRM, name: "IPsec policy events", groups: [KernelValues.groupPolicies], ownPort: 0
        ) { _ in onChange() }
    }

    func stop() { monitor.stop() }

    /// Whether there is a policy for packets that leave. Those of single sockets (key exchange daemons bypass themselves so) don't count.
    func exist() throws(KernelError) -> Bool {
        var outgoing: UInt32 = 0
        var request = socket.writer()
        request.append(type: KernelValues.xfrmGetPolicyCounts, flags: KernelValues.flagAck) { $0.putHeader([0, 0, 0, 0]) }
        _ = try socket.exchange(request, operation: "count IPsec policies") { reply in
            // struct xfrmu_spdinfo: incoming 4, outgoing 4, ...
            guard let counts = reply.attributes(after: 4).first(KernelValues.policyCounts)?.value, counts.count >= 8 else { return }
            outgoing = counts.loadUnaligned(fromByteOffset: 4, as: UInt32.self)
        }
        return outgoing > 0
    }
}
