import Glibc
import IMTPlan
import MATSignal
import Namespaces

/// Two MAT nodes and a router:
///
///         wlan 10.1.0.2/24        10.1.0.1 +--------+ 10.9.0.1          10.9.0.2/24 eth0
///     mn  2001:db8:1::2/64  --------------- | router | ------------------ 2001:db8:9::2  cn
///         cell 10.2.0.2/24        10.2.0.1 |        |
///         2001:db8:2::2/64  --------------- +--------+
///
///     HoAs: mn 192.0.2.1, 2001:db8:a::1     cn 198.51.100.1, 2001:db8:b::1
///     The router knows no route to any HoA.
final class Topology {
    let mn: Host
    let cn: Host
    let router: Namespace

    static let mnConfiguration = IMTConfiguration(homeAddresses: ["192.0.2.1", "2001:db8:a::1"].compactMap { HomeAddress($0) })
    static let cnConfiguration = IMTConfiguration(
        homeAddresses: ["198.51.100.1", "2001:db8:b::1"].compactMap { HomeAddress($0) })

    /// Without, others may change the tables, as on kernels before 6.9.
    let protectsTables: Bool

    init(protectsTables: Bool = true) throws {
        self.protectsTables = protectsTables
        let mnNamespace = try Namespace.host("mn")
        let cnNamespace = try Namespace.host("cn")
        router = try Namespace.host("r")
        mn = Host(mnNamespace)
        cn = Host(cnNamespace)
        try link(mnNamespace, "wlan", "r1", 1)
        try link(mnNamespace, "cell", "r2", 2)
        try link(cnNamespace, "eth0", "r9", 9)
        try router.forward()
        try defaultRoute(mnNamespace, "wlan", 1, metric: 100)
        try defaultRoute(mnNamespace, "cell", 2, metric: 200)
        try defaultRoute(cnNamespace, "eth0", 9, metric: 100)
    }

    deinit {
        // Each host's thread keeps its host alive, so it has to be ended from outside.
        mn.finish(leaving: false)
        cn.finish(leaving: false)
    }

    private func link(_ host: Namespace, _ device: String, _ far: String, _ number: Int) throws {
        try host.connect(device, to: router, far)
        for (namespace, device, last) in [(host, device, 2), (router, far, 1)] {
            try namespace.add(["10.\(number).0.\(last)/24", "2001:db8:\(number)::\(last)/64"], dev: device)
        }
    }

    private func defaultRoute(_ host: Namespace, _ device: String, _ number: Int, metric: Int) throws {
        for gateway in ["10.\(number).0.1", "2001:db8:\(number)::1"] { try host.addDefaultRoute(via: gateway, dev: device, metric: metric) }
    }

    /// Starts both nodes and maps each to the other.
    ///
    /// - Parameter capture: whether unmapped traffic leaves from HoAs. Without, nothing on the hosts tracks connections, and
    ///   so nothing puts fragments together before they are translated.
    func mapBoth(capture: Bool = true) throws {
        try start(capture: capture)
        try mapEachOther()
    }

    /// Maps each to the other in both families, from all of mn's MoAs.
    func mapEachOther() throws {
        try mn.map("192.0.2.1", "198.51.100.1", over: "10.1.0.2", "10.9.0.2", inbound: [("10.2.0.2", "10.9.0.2")])
        try mn.map(
            "2001:db8:a::1", "2001:db8:b::1", over: "2001:db8:1::2", "2001:db8:9::2",
            inbound: [("2001:db8:2::2", "2001:db8:9::2")])
        try cn.map("198.51.100.1", "192.0.2.1", over: "10.9.0.2", "10.1.0.2", inbound: [("10.9.0.2", "10.2.0.2")])
        try cn.map(
            "2001:db8:b::1", "2001:db8:a::1", over: "2001:db8:9::2", "2001:db8:1::2",
            inbound: [("2001:db8:9::2", "2001:db8:2::2")])
    }

    /// Starts both nodes with their MoAs, and maps nothing.
    func start(capture: Bool = true) throws {
        for (host, var configuration, links) in [
            (mn, Self.mnConfiguration, ["wlan", "cell"]), (cn, Self.cnConfiguration, ["eth0"]),
        ] {
            if !capture { configuration.traffic = .nothing }
            configuration.protectsTables = protectsTables
            try host.start(configuration)
            try host.useLocators(on: links)
        }
    }

    /// Starts cn as a server at home, whose HoAs are its MoAs, and maps nothing.
    func startAtHome(traffic: TrafficSelection = .everything) throws {
        var configuration = IMTConfiguration(homeAddresses: ["10.9.0.2", "2001:db8:9::2"].compactMap { HomeAddress($0) })
        configuration.traffic = traffic
        try cn.start(configuration)
        try cn.useLocators(on: "eth0")
    }

    /// Starts mn beside a server at home.
    func startMobile() throws {
        try mn.start(Self.mnConfiguration)
        try mn.useLocators(on: "wlan", "cell")
    }

    /// Maps mn and a server at home to each other.
    func mapAtHome(_ family: Family) throws {
        try mn.map(family.own, family.far, over: family.wlan, family.far)
        try cn.map(family.far, family.own, over: family.far, family.wlan)
    }

    /// Packets that a host's stack found damaged so far.
    func checksumErrors(_ host: Host) throws -> Int {
        let text = try host.namespace.run(
            "nstat -asz IpInHdrErrors TcpInCsumErrors UdpInCsumErrors UdpLiteInCsumErrors IcmpInCsumErrors IpExtInCsumErrors "
                + "Icmp6InCsumErrors Udp6InCsumErrors UdpLite6InCsumErrors")
        return text.split(separator: "\n").dropFirst().reduce(0) { sum, line in
            let fields = line.split(separator: " ")
            return sum + (fields.count > 1 ? Int(fields[1]) ?? 0 : 0)
        }
    }
}
