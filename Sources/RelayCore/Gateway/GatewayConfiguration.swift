import MATCore
import MATSignal

/// For which residents a relay is a gateway: it forwards for them to and from plain hosts (protocol.md section 11.5, "Gateway").
public struct GatewayConfiguration: Hashable, Sendable {
    /// How plain hosts know the HoAs of a prefix.
    public enum Service: Hashable, Sendable {
        /// By the HoA, which is routed to this host: they can begin a conversation.
        case routed
        /// By an address of the gateway, which the kernel's source translation gives them: nobody routes the HoA.
        case translated
    }

    public struct Prefix: Hashable, Sendable {
        public var prefix: IPPrefix
        public var service: Service

        public init(_ prefix: IPPrefix, _ service: Service) {
            self.prefix = prefix
            self.service = service
        }
    }

    /// Within residents' prefixes, and apart from each other.
    public var prefixes: [Prefix]
    /// Destinations that nodes may reach though they are the gateway's own or not global: a network behind it.
    public var allowed: [IPPrefix]

    public init(prefixes: [Prefix], allowed: [IPPrefix] = []) {
        self.prefixes = prefixes
        self.allowed = allowed
    }

    /// How those of a HoA, or home prefix, are served; `nil` if they are not.
    public func service(of prefix: IPPrefix) -> Service? { prefixes.first { $0.prefix.contains(prefix) }?.service }

    func serves(_ address: IPAddress) -> Bool { prefixes.contains { $0.prefix.contains(address) } }
}

extension GatewayConfiguration.Service {
    /// What a Bind Ack says of it.
    var role: ServerRole {
        switch self {
        case .routed: .gateway
        case .translated: .translatingGateway
        }
    }
}
