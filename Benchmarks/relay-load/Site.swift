import BenchSupport
import Foundation
import Glibc
import MATRuntime
import MATSignal
import Namespaces

//   a ── 198.51.100.2/24, 2001:db8:8::2/64 ── router, relay, TURN server ── 203.0.113.2/24, 2001:db8:9::2/64 ── b

func address(_ text: String) throws -> IPAddress {
    guard let address = IPAddress(text) else { throw BenchError("\(text) is no address") }
    return address
}

/// Three hosts of which the one in the middle forwards, in one way or another.
final class Site {
    private let a: Namespace
    private let relay: Namespace
    private let b: Namespace
    private let path: String
    private let authority: SigningKey
    private var processes: [Child] = []
    private var lastPort: UInt16 = 7000
    private var lastHoA: UInt32 = 0x0A00_0000

    init(_ name: String) throws {
        (a, relay, b) = (try Namespace.bench(name + "a"), try Namespace.bench(name + "r"), try Namespace.bench(name + "b"))
        path = "/tmp/relay-load-\(getpid())-\(name)"
        authority = try key(1)
        try relay.forward()
        try relay.connect("to-a", to: a, "eth")
        try relay.connect("to-b", to: b, "eth")
        try relay.add(["198.51.100.1/24", "2001:db8:8::1/64"], dev: "to-a")
        try relay.add(["203.0.113.1/24", "2001:db8:9::1/64"], dev: "to-b")
        try a.add(["198.51.100.2/24", "2001:db8:8::2/64"], dev: "eth")
        try b.add(["203.0.113.2/24", "2001:db8:9::2/64"], dev: "eth")
        for (host, gateways) in [(a, ["198.51.100.1", "2001:db8:8::1"]), (b, ["203.0.113.1", "2001:db8:9::1"])] {
            for gateway in gateways { try host.addDefaultRoute(via: gateway, dev: "eth") }
        }
    }

    func end() {
        for process in processes { process.end() }
        unlink(path)
    }

    /// - Parameter forwarding: as in mat-relay.yaml.
    func startRelay(_ forwarding: String, threads: Int) throws {
        try """
        residents: [{prefix: 10.0.0.0/24, public-keys: ["\(Data(authority.publicKey.octets).base64EncodedString())"]}]
        limits: {rate: 1Tbit, burst: 1GiB, relay-rate: 1Tbit}
        threads: \(threads)
        forwarding: \(forwarding)
        pins: /tmp
        """.write(toFile: path, atomically: true, encoding: .utf8)
        let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let program = (own as NSString).deletingLastPathComponent + "/mat-relay"
        processes.append(try Child(["ip", "netns", "exec", relay.name, program, "--config", path]))
    }

    private func ownAddress(_ isA: Bool, _ isIPv4: Bool, host: Int) throws -> IPAddress {
        try address(isIPv4 ? (isA ? "198.51.100.\(host)" : "203.0.113.\(host)") : (isA ? "2001:db8:8::\(host)" : "2001:db8:9::\(host)"))
    }

    private func end(_ isA: Bool, _ isIPv4: Bool, relayPort: UInt16 = SignalPort.relay) throws -> End {
        lastPort += 1
        return try End(
            in: isA ? a : b, at: Endpoint(try ownAddress(isA, isIPv4, host: 2), port: lastPort),
            relay: Endpoint(try ownAddress(isA, isIPv4, host: 1), port: relayPort))
    }

    func plainEnds(_ isIPv4: Bool) throws -> (End, End) { (try end(true, isIPv4), try end(false, isIPv4)) }

    /// Bound at the relay, each in a family.
    func boundEnds(_ isIPv4AtA: Bool, _ isIPv4AtB: Bool) throws -> (a: (end: End, hoa: HomeAddress), b: (end: End, hoa: HomeAddress)) {
        func bound(_ isA: Bool, _ isIPv4: Bool) throws -> (end: End, hoa: HomeAddress) {
            lastHoA += 1
            let hoa = HomeAddress(IPAddress(ipv4: lastHoA))
            let end = try end(isA, isIPv4)
            try end.bind(hoa, authority)
            return (end, hoa)
        }
        return (try bound(true, isIPv4AtA), try bound(false, isIPv4AtB))
    }

    /// coturn, of Debian's package, without authentication, and a channel through it.
    func startTURN() throws -> TURNChannel {
        guard shellStatus("command -v turnserver").status == 0 else { throw BenchError("turnserver is not installed (apt-get install coturn)") }
        let command =
            "turnserver -n --no-auth --no-cli --no-tls --no-dtls --listening-ip 198.51.100.1 --relay-ip 203.0.113.1 --relay-threads 1 --realm bench "
            + "--log-file stdout --pidfile \(path).pid"
        processes.append(try Child(["ip", "netns", "exec", relay.name] + command.split(separator: " ").map(String.init)))
        return try TURNChannel(client: try end(true, true, relayPort: 3478), peer: try end(false, true))
    }
}
