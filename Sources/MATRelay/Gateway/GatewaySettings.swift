import IMTKernel
import IMTPlan
import MATRuntime
import MATSignal
import RelayCore

extension RelayConfiguration {
    /// What the section `gateway:` says beyond what the core is to decide.
    public struct Gateway: Hashable, Sendable {
        /// Name and MTU of the device, and what the kernel leads into it.
        public var device = GatewayDevice.Configuration()
        /// Whether forwarding is turned on in the kernel; otherwise it is only said where it is off.
        public var turnsForwardingOn = false
    }

    /// The words of `service`.
    private enum ServiceWord: String, CaseIterable {
        case routed
        case sourceNAT = "source-nat"
    }

    private enum ForwardingWord: String, CaseIterable {
        case check, set
    }

    /// The section is after the residents, whose prefixes it names.
    mutating func readGateway(_ file: ConfigurationSection) {
        let section = file.section("gateway")
        guard section.isPresent else { return }
        var settings = Gateway()
        var gateway = GatewayConfiguration(prefixes: [])
        for entry in section.sections("prefixes") {
            let prefix = entry.required("prefix", .prefix)
            let service = entry.value("service", ConfigurationKind<ServiceWord>.word, default: .routed)
            guard let prefix else { continue }
            if core.resident(prefix) == nil {
                entry.reject("prefix", "\(prefix) is no residents', and a gateway is for residents only", "name it, or a longer one, under residents")
            }
            if let other = gateway.prefixes.first(where: { $0.prefix.contains(prefix) || prefix.contains($0.prefix) }) {
                entry.reject("prefix", "\(prefix) overlaps \(other.prefix), which is listed before", "keep one of the two")
            }
            gateway.prefixes.append(GatewayConfiguration.Prefix(prefix, service == .routed ? .routed : .translated))
        }
        if gateway.prefixes.isEmpty, !section.has("prefixes") {
            section.reject("prefixes", "the gateway is for nobody", "add home addresses of residents, as in - prefix: 192.0.2.0/24")
        }
        gateway.allowed = section.list("allow", .prefix)
        settings.device.name = section.value("device", .interfaceName, default: settings.device.name)
        settings.device.mtu = UInt32(section.value("mtu", .int(in: Int(Carriage.mtuAtFirst)...9000), default: Int(settings.device.mtu)))
        settings.turnsForwardingOn = section.value("forwarding", ConfigurationKind<ForwardingWord>.word, default: .check) == .set
        settings.device.routed = gateway.prefixes.filter { $0.service == .routed }.map(\.prefix)
        settings.device.translated = gateway.prefixes.filter { $0.service == .translated }.map(\.prefix)
        core.gateway = gateway
        self.gateway = settings
    }
}

extension ConfigurationKind where Value == String {
    /// A network interface's name.
    fileprivate static var interfaceName: Self {
        Self { text in
            guard (1...15).contains(text.utf8.count), !text.contains("/"), !text.contains(" ") else {
                return .rejected(reason: "is no name of an interface", remedy: "write 1 to 15 octets without slash or space, such as matgw0")
            }
            return .value(text)
        }
    }
}
