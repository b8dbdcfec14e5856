import MATRuntime
import MATServer
import MATSignal
import RelayCore

extension RelayConfiguration {
    /// The port for metrics, if only an address is given.
    static let metricsPort: UInt16 = 9290
    /// Likewise of the page for people.
    static let viewPort: UInt16 = 8290

    /// Threads that `threads` can ask for.
    static let threadsMax = 256
    /// Addresses that the relay may be known by: each is one more signature check for a Bind that fits none.
    static let advertisedMax = 4

    mutating func read(_ file: ConfigurationSection) throws(ConfigurationError) {
        let listen = file.section("listen")
        port = listen.value("port", .port, default: port)
        addresses = listen.list("addresses", .address)
        core.advertised = file.list("advertised", .address)
        if core.advertised.count > Self.advertisedMax {
            file.reject("advertised", "\(core.advertised.count) addresses are more than \(Self.advertisedMax)", "name those that nodes know")
        }
        for address in core.advertised where !address.isUsableUnicast {
            file.reject("advertised", "\(address) is no address at which a node could reach this relay", "name those that nodes know")
        }
        threads = file.value("threads", .int(in: 1...Self.threadsMax))
        forwarding = file.value("forwarding", ConfigurationKind<Forwarder>.word, default: forwarding)
        pinsPath = file.value("pins", .path, default: pinsPath)
        readResidents(file)
        core.takesVisitors = file.value("visitors", .bool, default: core.takesVisitors)
        core.otherRelays = file.list("other-relays", .address)
        readGateway(file)
        readLimits(file.section("limits"))
        statePath = file.value("state", .path)

        let dns = file.section("dns")
        resolvers = dns.list("resolvers", .endpoint(defaultPort: 53))
        dnsTimeout = dns.value("timeout", .duration(in: .milliseconds(500) ... .seconds(60)), default: dnsTimeout)
        requireDNSSEC = dns.value("require-dnssec", .bool, default: requireDNSSEC)

        verifiersCount = file.value("verifiers", .int(in: 1...256), default: verifiersCount)
        logLevel = file.value("log-level", ConfigurationKind<LogLevelWord>.word, default: .info).rawValue
        logFormat = file.value("log-format", ConfigurationKind<LogFormat>.word, default: logFormat)
        viewAddress = file.section("view").viewAddress(defaultPort: Self.viewPort)
        metricsAddress = file.section("metrics").metricsAddress(defaultPort: Self.metricsPort, besides: viewAddress)
        drain = file.value("drain", .duration(in: .zero ... .seconds(300)), default: drain)
        try file.finish()
    }

    private mutating func readResidents(_ file: ConfigurationSection) {
        for section in file.sections("residents") {
            let prefix = section.required("prefix", .prefix)
            let keys = section.list("public-keys", .publicKey)
            let refusesVisitors = section.value("refuse-visitors", .bool, default: false)
            guard let prefix else { continue }
            if let other = core.residents.first(where: { $0.prefix.contains(prefix) || prefix.contains($0.prefix) }) {
                section.reject("prefix", "\(prefix) overlaps \(other.prefix), which is listed before", "keep the shorter of the two")
            }
            core.residents.append(ResidentPrefix(prefix, publicKeys: keys, refusesVisitors: refusesVisitors))
        }
        if core.residents.isEmpty, !file.has("residents") {
            file.reject(
                "residents", "the relay is for nobody: one of two nodes that talk through it must be a resident",
                "add the prefixes of its home addresses, as in - prefix: 192.0.2.0/24")
        }
    }

    private mutating func readLimits(_ section: ConfigurationSection) {
        func number(_ key: String, _ value: inout Int, _ range: ClosedRange<Int>) {
            value = section.value(key, .int(in: range), default: value)
        }
        let rates = 1...1_000_000
        core.limits.octetsPerSecond = section.value("rate", .bitRate, default: core.limits.octetsPerSecond)
        core.limits.burstOctets = section.value("burst", .octets, default: core.limits.burstOctets)
        core.limits.relayOctetsPerSecond = section.value("relay-rate", .bitRate, default: core.limits.relayOctetsPerSecond)
        core.limits.visitorsOctetsPerSecond = section.value("visitors-rate", .bitRate)
        core.limits.octetsPerMonth = section.value("month", .octets).map { UInt64(clamping: $0) }
        if core.limits.burstOctets < Self.burstOctetsMin {
            section.reject("burst", "no packet of full size would ever pass", "write at least \(Self.burstOctetsMin)B")
        }
        number("bindings", &core.limits.bindingsMax, 1...10_000_000)
        core.limits.visitorBindingsMax = section.value("visitor-bindings", .int(in: 0...10_000_000))
        number("visitor-bindings-per-key", &core.limits.visitorBindingsPerKeyMax, 1...10_000_000)
        number("binds-per-second", &core.limits.bindsPerSecond, rates)
        number("binds-per-shared-source", &core.limits.bindsPerSharedSourcePerSecond, rates)
        number("look-ups-per-second", &core.limits.lookUpsPerSecond, rates)
        number("look-ups", &core.limits.lookUpsMax, 64...10_000_000)
        number("verifications-per-second", &core.limits.verificationsPerSecond, rates)
        number("verifications-pending", &core.limits.verificationsPendingMax, 1...1_000_000)
        number("error-answers-per-second", &core.limits.errorAnswersPerSecond, rates)
        number("refusal-logs-per-second", &core.limits.refusalLogsPerSecond, rates)
        number("binding-logs-per-second", &core.limits.bindingLogsPerSecond, rates)
    }

    /// A packet of a jumbo frame.
    private static let burstOctetsMin = 9216
}

extension ConfigurationKind where Value == Int {
    /// A rate in bits a second, as people name it: `20Mbit`, `1.5Gbit`, `64kbit`. The value is in octets a second.
    static var bitRate: Self {
        Self { text in
            let units: [(String, Double)] = [("kbit", 1e3), ("Mbit", 1e6), ("Gbit", 1e9), ("Tbit", 1e12)]
            for (unit, factor) in units where text.hasSuffix(unit) {
                guard let number = Double(text.dropLast(unit.count)), number > 0, number * factor <= 8e12 else { break }
                return .value(max(1, Int(number * factor / 8)))
            }
            return .rejected(reason: "is not a rate", remedy: "write bits a second, as in 64kbit, 20Mbit or 1.5Gbit")
        }
    }

    /// So many octets: `262144B`, `256KiB`, `20GiB`, `1TiB`.
    static var octets: Self {
        Self { text in
            let units: [(String, Double)] = [("KiB", 1024), ("MiB", 1_048_576), ("GiB", 1_073_741_824), ("TiB", 1_099_511_627_776), ("B", 1)]
            for (unit, factor) in units where text.hasSuffix(unit) {
                guard let number = Double(text.dropLast(unit.count)), number > 0, number * factor <= 1e15 else { break }
                return .value(max(1, Int(number * factor)))
            }
            return .rejected(reason: "is not a number of octets", remedy: "write it as in 9216B, 256KiB, 20GiB or 1TiB")
        }
    }
}
