import CLinux
import Glibc
import MATRuntime
import MATSignal

/// Sends ICMP echo requests of several sizes at once, none of which may be cut up on the way. Only root has the sockets for that.
enum PathSizeProbe {
    private static let patience: Duration = .milliseconds(400)
    /// A packet may be lost.
    private static let rounds = 3

    static func measure(_ target: PathSize.Target, _ address: IPAddress, over interface: String, mtu: Int) -> PathSize? {
        guard let socket = ICMPSocket(address.family) else { return nil }
        socket.probe(over: interface)
        var path = PathSize(target: target, address: address, interface: interface, mtu: mtu, answered: [])
        let identifier = UInt16.random(in: 0 ... .max)
        let sizes = PathSize.tried(mtu, address.family)
        for round in 0..<rounds {
            let missing = sizes.filter { !path.answered.contains($0) }
            // Who answers nothing at all is not waited for three times.
            if missing.isEmpty || round == 2 && path.answered.isEmpty { break }
            for size in missing {
                guard let number = sizes.firstIndex(of: size) else { continue }
                _ = socket.send(ICMPSocket.echo(address.family, identifier, UInt16(number), size: size), to: address)
            }
            let began = SystemClock.now().monotonic
            while path.answered.count < sizes.count {
                let elapsed = SystemClock.now().monotonic - began
                guard elapsed < patience else { break }
                for message in socket.receive(for: patience - elapsed) where message.source == address {
                    if let number = message.echoReply(address.family, identifier), sizes.indices.contains(Int(number)) {
                        path.answered.insert(sizes[Int(number)])
                    }
                }
            }
        }
        path.told = told(address, over: interface)
        return path
    }

    /// The MTU of the path, as the kernel has it from its links, routes and routers.
    private static func told(_ address: IPAddress, over interface: String) -> Int? {
        OwnTraffic.withUDP(to: Endpoint(address, port: 9), over: interface) { descriptor in
            var (mtu, length) = (Int32(0), socklen_t(4))
            // IP_MTU, IPV6_MTU
            guard getsockopt(descriptor, address.isIPv4 ? 0 : 41, address.isIPv4 ? 14 : 24, &mtu, &length) == 0 else { return nil }
            return Int(mtu)
        }
    }
}
