import FoundationEssentials
import Namespaces

/// An interface of a host, as `ip -json address` tells of it.
struct Interface: Decodable {
    struct Address: Decodable {
        var family: String
        var local: String
        var prefixlen: Int
        var scope: String
        var tentative: Bool?
    }

    var ifname: String
    var flags: [String]
    /// The bridge that it is a port of.
    var master: String?
    /// Of the hardware.
    var address: String?
    var addresses: [Address]

    private enum CodingKeys: String, CodingKey {
        case ifname, flags, master, address
        case addresses = "addr_info"
    }

    static func all(in namespace: String) throws -> [Interface] { try read(namespace, ["address", "show"]) }

    static func named(_ device: String, in namespace: String) throws -> Interface {
        guard let interface = try read(namespace, ["address", "show", "dev", device]).first else {
            throw LabError("\(namespace) has no interface \(device)")
        }
        return interface
    }

    private static func read(_ namespace: String, _ arguments: [String]) throws -> [Interface] {
        try JSON.read([Interface].self, namespace, arguments)
    }

    var isUp: Bool { flags.contains("UP") }
    var global: [Address] { addresses.filter { $0.scope == "global" } }
    /// With their lengths.
    var globalAddresses: [String] { global.map { "\($0.local)/\($0.prefixlen)" } }

    /// Has an address that counts and a default route, in each of these families.
    static func isConfigured(_ device: String, _ families: [String], in namespace: String) throws -> Bool {
        let addresses = try named(device, in: namespace).global.filter { $0.tentative != true }
        for (family, option) in [("inet", "-4"), ("inet6", "-6")] where families.contains(family) {
            guard addresses.contains(where: { $0.family == family }) else { return false }
            if try JSON.read([Route].self, namespace, [option, "route", "show", "default", "dev", device]).isEmpty { return false }
        }
        return true
    }

    private struct Route: Decodable { var dst: String }

    /// A port of a bridge that passes frames.
    static func forwards(_ device: String, in namespace: String) throws -> Bool {
        struct Port: Decodable {
            struct Info: Decodable {
                var slave: Data?
                private enum CodingKeys: String, CodingKey { case slave = "info_slave_data" }
            }
            struct Data: Decodable { var state: String? }
            var operstate: String
            var linkinfo: Info?
        }
        let port = try JSON.read([Port].self, namespace, ["-details", "link", "show", "dev", device]).first
        return port?.operstate == "UP" && port?.linkinfo?.slave?.state == "forwarding"
    }

    private enum JSON {
        static func read<Value: Decodable>(_ type: Value.Type, _ namespace: String, _ arguments: [String]) throws -> Value {
            let command = ["ip", "-n", namespace, "-json"] + arguments
            let result = try runCommand(command, within: 10)
            guard result.status == 0 else { throw LabError("\(command.joined(separator: " ")): \(result.output)") }
            // Nothing to tell is no text at all.
            return try JSONDecoder().decode(type, from: Data((result.output.isEmpty ? "[]" : result.output).utf8))
        }
    }
}
