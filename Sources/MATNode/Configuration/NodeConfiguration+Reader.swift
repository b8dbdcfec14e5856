import IMTPlan
import MATRuntime
import MATSignal
import NodeCore

/// The words of `traffic` that are no list.
private enum TrafficWord: String {
    case everything, nothing
}

/// The words of `paths`.
private enum PathUse: String, CaseIterable {
    case all
    case relayOnly = "relay-only"
}

extension NodeConfiguration {
    /// Lifetimes shorter than this would flood the IMS.
    private static let lifetimeMin = 30
    /// The port for metrics, if only an address is given.
    static let metricsPort: UInt16 = 9289

    /// Reads a configuration file.
    ///
    /// - Throws: everything that is wrong with it at once, each with file, line and remedy.
    public init(path: String) throws(ConfigurationError) {
        self.init()
        try read(try ConfigurationFile.read(path: path))
    }

    /// Parses text that is already at hand; `file` is the name used in messages.
    public init(parsing text: String, file: String) throws(ConfigurationError) {
        self.init()
        try read(try ConfigurationFile.parse(text, file: file))
    }

    private mutating func read(_ file: ConfigurationSection) throws(ConfigurationError) {
        readTraffic(file)

        let interfaces = file.section("interfaces")
        preferredInterfaces = interfaces.list("prefer", .string)
        ignoredInterfaces = interfaces.list("ignore", .string, default: ignoredInterfaces)
        takesVisitedHomes = file.value("visited", .bool, default: false)
        visitedLinger = file.value("visited-linger", .duration(in: .zero...Visit.lingerMax), default: visitedLinger)
        needsDefaultRoute = interfaces.value("need-default-route", .bool, default: true)
        for name in preferredInterfaces where !mayUse(interface: name) {
            interfaces.reject("prefer", "\(name) is also ignored", "take it off `ignore`, or off `prefer`")
        }

        routedPrefixes = file.list("routed", .prefix)
        for prefix in routedPrefixes where prefix.address.scope == .global && prefix.length > 0 {
            file.reject("routed", "\(prefix) is of global scope, and so routed anyway", "remove it")
        }
        if routedPrefixes.count > Self.routedPrefixesMax {
            file.reject("routed", "\(routedPrefixes.count) prefixes, at most \(Self.routedPrefixesMax)", "use shorter prefixes")
        }

        relays = file.list("relays", .relay)
        if relays.count > Self.relaysMax { file.reject("relays", "\(relays.count) relays, at most \(Self.relaysMax)", "remove some") }

        site = file.list("site", .prefix)
        if site.count > Self.siteMax { file.reject("site", "\(site.count) prefixes, at most \(Self.siteMax)", "use shorter prefixes") }
        for prefix in site where prefix.length == 0 || prefix.length == 96 && prefix.family == .ipv4 {
            file.reject("site", "\(prefix) is everybody", "name the home addresses that stand at the same site")
        }
        mtu = file.value("mtu", .int(in: Self.mtuRange)).map { UInt32(clamping: $0) }

        readPlain(file)
        readHomes(file)
        readPeers(file)
        readPaths(file)
        inbound = file.value("inbound", ConfigurationKind<InboundSetting>.word, default: .auto)

        let dns = file.section("dns")
        resolvers = dns.list("resolvers", .endpoint(defaultPort: 53))
        requireDNSSEC = dns.value("require-dnssec", .bool, default: false)

        readNAT64(file)

        controlPath = file.value("control", .path, default: controlPath)
        controlGroup = file.value("control-group", .string)
        statePath = file.value("state", .path, default: statePath)
        metricsAddress = file.section("metrics").metricsAddress(defaultPort: Self.metricsPort)
        logLevel = file.value("log-level", ConfigurationKind<LogLevelWord>.word, default: .info).rawValue
        let seconds = file.value(
            "lifetime", .duration(in: .seconds(Self.lifetimeMin) ... .seconds(Int(MappingRecord.lifetimeMax))), default: .seconds(Int(lifetime)))
        lifetime = UInt32(clamping: seconds.components.seconds)
        pollInterval = file.value("poll-interval", .duration(in: .seconds(1) ... .seconds(600)), default: pollInterval)
        peerIdleMax = file.value("peer-idle", .duration(in: .seconds(10) ... .seconds(86_400)), default: peerIdleMax)
        messagesPerSecond = file.value("messages-per-second", .int(in: 10...100_000), default: messagesPerSecond)
        onStop = file.value("on-stop", ConfigurationKind<OnStop>.word, default: .keep)
        connectionTracking = file.value("connection-tracking", ConfigurationKind<ConnectionTracking>.word, default: .auto)
        routingRules = file.value("routing-rules", ConfigurationKind<RoutingRules>.word, default: .first)
        encapsulation = file.value("encapsulation", ConfigurationKind<EncapsulationPlace>.word, default: .auto)
        dataPlane = file.value("data-plane", ConfigurationKind<DataPlane>.word, default: .nftables)
        reversePath = file.value("reverse-path", ConfigurationKind<ReversePath>.word, default: .warn)
        try file.finish()
    }

    private mutating func readNAT64(_ file: ConfigurationSection) {
        switch file.value("nat64", .string, default: "auto") {
        case "auto": nat64 = .auto
        case "none": nat64 = .never
        case let text:
            if let prefix = IPPrefix(text).flatMap({ NAT64Prefix($0) }) {
                nat64 = .fixed(prefix)
            } else {
                file.reject(
                    "nat64", "\(text) is no prefix of a NAT64",
                    "write auto, none, or an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits such as 64:ff9b::/96")
            }
        }
    }

    /// `plain:` is one word for all, or a section with a word for most and lists of prefixes for others.
    private mutating func readPlain(_ file: ConfigurationSection) {
        guard file.isSection("plain") else {
            plain.standard = file.value("plain", ConfigurationKind<PlainPolicy.Way>.word, default: .none)
            return
        }
        let section = file.section("plain")
        plain.standard = section.value("default", ConfigurationKind<PlainPolicy.Way>.word, default: .none)
        for way in PlainPolicy.Way.allCases {
            for prefix in section.list(way.rawValue, .prefix) {
                let isKnown = plain.exceptions.contains { $0.prefix == prefix }
                if isKnown { section.reject(way.rawValue, "\(prefix) is listed twice", "remove one") }
                plain.exceptions.append(PlainPolicy.Exception(prefix, way))
            }
        }
        if plain.exceptions.count > PlainPolicy.exceptionsMax {
            section.reject(nil, "\(plain.exceptions.count) prefixes, at most \(PlainPolicy.exceptionsMax)", "use shorter prefixes")
        }
    }

    private mutating func readHomes(_ file: ConfigurationSection) {
        let sections = file.sections("home-addresses")
        for section in sections {
            let network = readNetwork(section)
            let address = network.map { HomeAddress($0.prefix.address) } ?? (section.has("prefix") ? nil : section.required("address", .homeAddress))
            let key = section.required("key", .path)
            let certificate = section.required("certificate", .path)
            let uses = section.list("use", .string)
            guard let address, let key, let certificate else { continue }
            if homes.contains(where: { $0.hoa == address }) { section.reject("address", "\(address) is listed twice", "remove one") }
            // An interface's name never parses as an address.
            let use = uses.map { text in IPPrefix(text).map(LocatorAssignment.Use.prefix) ?? .interface(text) }
            for case .interface(let name) in use where name.contains("/") || name.contains(":") || name.utf8.count > 15 {
                section.reject(
                    "use", "\(name) is neither an interface nor a prefix", "write an interface such as wlan0, or a prefix such as 203.0.113.0/24")
            }
            if network != nil, !use.isEmpty { section.reject("use", "a mobile network has its `mobile-prefixes` only", "remove it") }
            homes.append(
                Home(
                    hoa: address, prefix: network?.prefix ?? IPPrefix(address.address), mobilePrefixes: network?.places ?? [], keyPath: key,
                    certificatePath: certificate, use: network.map { $0.places.map(\.prefix).sorted().map(LocatorAssignment.Use.prefix) } ?? use))
        }
        if homes.count > IMTConfiguration.homeAddressesMax {
            file.reject("home-addresses", "\(homes.count) of them, at most \(IMTConfiguration.homeAddressesMax)", "remove some")
        }
        if sections.isEmpty { file.reject("home-addresses", "lists no home address", "add one with `address`, `key` and `certificate`") }
    }

    /// A mobile network's home prefix, and its MoPres; `nil` if the entry is for a single address, or wrong.
    private func readNetwork(_ section: ConfigurationSection) -> (prefix: IPPrefix, places: [AddressRules.MobilePrefix])? {
        let entries = section.sections("mobile-prefixes")
        guard let prefix = section.value("prefix", .prefix) else {
            if !entries.isEmpty, !section.has("prefix") {
                section.reject(
                    "mobile-prefixes", "a single home address has none", "give the mobile network's home prefix as `prefix` instead of `address`")
            }
            return nil
        }
        if section.has("address") {
            _ = section.value("address", .homeAddress)
            section.reject(
                "address", "there is a `prefix` too", "remove one: the router of a mobile network is reached at the prefix's first address")
        }
        guard prefix.address.isUsableUnicast, prefix.length <= 126, prefix.familyLength > 0 else {
            section.reject("prefix", "\(prefix) can't be a mobile network's home prefix", "give a unicast prefix of at least four addresses")
            return nil
        }
        var places: [AddressRules.MobilePrefix] = []
        for entry in entries {
            guard let interface = entry.required("interface", .string), let place = entry.required("prefix", .prefix) else { continue }
            guard place.family == prefix.family, place.length == prefix.length, place.address.isUsableUnicast else {
                entry.reject("prefix", "\(place) does not fit the home prefix \(prefix)", "both must be of one family and equally long")
                continue
            }
            if !mayUse(interface: interface) { entry.reject("interface", "\(interface) is ignored by `interfaces`", "take it off `ignore`") }
            let network = entry.value("network", .prefix)
            if let network, network.family != place.family {
                entry.reject("network", "\(network) is of another family than \(place)", "give what the interface's own address is in there")
            }
            for other in places where other.interface == interface {
                if let network, let known = other.network, !network.contains(known), !known.contains(network) { continue }
                entry.reject(
                    "interface", "\(interface) has the mobile prefix \(other.prefix) already",
                    "remove one of the two, or say by `network` which of them counts in which network")
            }
            if places.contains(where: { $0.prefix == place }) {
                entry.reject("prefix", "\(place) is listed already", "each network routes a prefix of its own")
            }
            places.append(AddressRules.MobilePrefix(interface: interface, prefix: place, network: network))
        }
        if entries.count > IMTConfiguration.mobilePrefixesMax {
            section.reject(
                "mobile-prefixes", "\(entries.count) entries, at most \(IMTConfiguration.mobilePrefixesMax)", "remove those that are not used")
        }
        return (prefix, places)
    }

    private mutating func readPeers(_ file: ConfigurationSection) {
        for section in file.sections("peers") {
            let prefix = section.required("address", .prefix)
            let interfaces = section.requiredList("prefer", .string)
            for name in interfaces where !mayUse(interface: name) {
                section.reject("prefer", "\(name) is ignored by `interfaces`", "take it off `ignore`, or off `prefer`")
            }
            guard let prefix else { continue }
            if peerPreferences.contains(where: { $0.prefix == prefix }) {
                section.reject("address", "\(prefix) has a preference already", "remove one of the two")
            }
            peerPreferences.append(PeerPreference(prefix, interfaces: interfaces))
        }
        if peerPreferences.count > Self.peerPreferencesMax {
            file.reject("peers", "\(peerPreferences.count) entries, at most \(Self.peerPreferencesMax)", "use prefixes")
        }
    }

    /// `paths:` is one word, or a section.
    private mutating func readPaths(_ file: ConfigurationSection) {
        if file.isWord("paths") {
            paths.isRelayOnly = file.value("paths", ConfigurationKind<PathUse>.word, default: .all) == .relayOnly
        } else {
            readWatching(file.section("paths"))
        }
        if paths.isRelayOnly, let network = networks.first {
            file.reject("paths", "the mobile network \(network.prefix) can't be reached by relays", "remove relay-only, or the network")
        }
    }

    private mutating func readWatching(_ section: ConfigurationSection) {
        paths.isRelayOnly = section.value("use", ConfigurationKind<PathUse>.word, default: .all) == .relayOnly
        paths.isProbing = section.value("probe", .bool, default: true)
        paths.interval = section.value("interval", .duration(in: .milliseconds(250) ... .seconds(60)), default: paths.interval)
        paths.idleInterval = section.value("idle-interval", .duration(in: .seconds(5) ... .seconds(3600)), default: paths.idleInterval)
        paths.holdDown = section.value("hold-down", .duration(in: .seconds(1) ... .seconds(600)), default: paths.holdDown)
        paths.holdDownMax = section.value(
            "hold-down-max", .duration(in: .seconds(1) ... .seconds(3600)), default: max(paths.holdDownMax, paths.holdDown))
        if paths.holdDownMax < paths.holdDown {
            section.reject("hold-down-max", "it is shorter than `hold-down`", "give at least the time of `hold-down`")
        }
    }

    private mutating func readTraffic(_ file: ConfigurationSection) {
        exceptions = file.list("except", .prefix)
        if exceptions.count > IMTConfiguration.exceptionsMax {
            file.reject("except", "\(exceptions.count) prefixes, at most \(IMTConfiguration.exceptionsMax)", "use shorter ones")
        }
        guard file.has("traffic") else { return }
        if file.isList("traffic") {
            traffic = .prefixes(file.list("traffic", .prefix))
        } else {
            let word = ConfigurationKind<TrafficWord> { text in
                guard let word = TrafficWord(rawValue: text) else {
                    return .rejected(reason: "is not a known word", remedy: "write everything, nothing, or a list of prefixes, as in [192.0.2.0/24]")
                }
                return .value(word)
            }
            switch file.value("traffic", word) {
            case .everything?: traffic = .everything
            case .nothing?: traffic = .nothing
            case nil: break
            }
        }
    }
}
