import Glibc
import MATSignal
import Namespaces

/// A `PacketTranslator` between a TUN interface and itself.
public enum Translator {
    /// Until a signal comes, which is looked for that often.
    private static let patienceNanoseconds: Int64 = 200_000_000

    /// - Parameter inside: the hosts' IPv4 prefix, or the IPv6 prefix in which they have IPv4 addresses.
    public static func run(_ device: String, outer: IPAddress, inside: IPPrefix, _ rules: Translation) throws {
        let kind: PacketTranslator.Inside
        if inside.isIPv4 {
            kind = .ipv4(inside)
        } else if inside.length == 96 {
            kind = .ipv6(inside)
        } else {
            throw LabError("\(inside) is neither an IPv4 prefix nor one of 96 bits")
        }
        var tunnel = try Tunnel(device)
        var translator = PacketTranslator(outer: outer, inside: kind, rules, ports: GatewayPlan.ports(rules))
        var random = SystemRandomNumberGenerator()
        while Interruption.signal == nil {
            tunnel.wait(nanoseconds: patienceNanoseconds)
            while let packet = tunnel.read() {
                // What the kernel does not take back is lost, as on any link.
                if let out = translator.translate(packet, now: PortMappings.Milliseconds(monotonicSeconds() * 1000), using: &random) {
                    tunnel.write(out)
                }
            }
        }
    }
}
