import IMSCore
import MATDNS
import MATRuntime
import MATServer
import MATSignal

extension IMSConfiguration {
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
        controlPath = file.value("control", .path, default: controlPath)
        controlGroup = file.value("control-group", .string)
        readStore(file)
        signingKeyPath = file.value("signing-key", .path)
        publicKeys = file.list("public-keys", .publicKey)
        previousKeys = file.list("previous-keys", .publicKey)
        if signingKeyPath == nil, publicKeys.isEmpty, previousKeys.isEmpty, !file.has("public-keys"), !file.has("previous-keys") {
            file.reject(
                "signing-key", "neither `signing-key` nor `public-keys` is given, so that no certificate could be checked",
                "make a key with `mat keygen` and name its file, or list the public keys of a key that is kept elsewhere")
        }
        let listen = file.section("listen")
        port = listen.value("port", .port, default: port)
        addresses = listen.list("addresses", .address)
        threads = file.value("threads", .int(in: 1...QueryPath.threadsMax))
        readPrefixes(file)
        readRelays(file)
        if file.has("visitors") { readVisitors(file.section("visitors")) }

        let dns = file.section("dns")
        resolvers = dns.list("resolvers", .endpoint(defaultPort: 53))
        dnsTimeout = dns.value("timeout", .duration(in: .milliseconds(500) ... .seconds(60)), default: dnsTimeout)
        requireDNSSEC = dns.value("require-dnssec", .bool, default: requireDNSSEC)

        readLimits(file.section("limits"))
        draftSources = file.list("draft-sources", .prefix)
        readAcceptedRelays(file)
        publicAddresses = file.list("public-addresses", .address)
        if publicAddresses.count > Self.publicAddressesMax {
            file.reject("public-addresses", "more than \(Self.publicAddressesMax) are listed", "list those at which nodes find this server")
        }
        for address in publicAddresses where !address.isUsableUnicast {
            file.reject("public-addresses", "\(address) is no address at which a node could reach this server", "list those that nodes are told")
        }
        bindingsPath = file.value("bindings-file", .path) ?? (etcd == nil ? storePath + ".bindings" : nil)
        accountsPath = file.value("accounts-file", .path) ?? (etcd == nil ? storePath + ".accounts" : "/var/lib/imsd/accounts")
        readRADIUS(file)
        let reachability = file.section("reachability-test")
        testsReachability = reachability.value("enabled", .bool, default: testsReachability)
        reachabilityAddresses = reachability.list("addresses", .address)
        verifiersCount = file.value("verifiers", .int(in: 1...256), default: verifiersCount)
        certificateLifetime = file.value(
            "certificate-lifetime", .duration(in: .seconds(3600) ... .seconds(3650 * 86_400)), default: certificateLifetime)
        logLevel = file.value("log-level", ConfigurationKind<LogLevelWord>.word, default: .info).rawValue
        logFormat = file.value("log-format", ConfigurationKind<LogFormat>.word, default: logFormat)
        viewAddress = file.section("view").viewAddress(defaultPort: Self.viewPort)
        metricsAddress = file.section("metrics").metricsAddress(defaultPort: Self.metricsPort, besides: viewAddress)
        drainMax = file.value("drain", .duration(in: .zero ... .seconds(60)), default: drainMax)
        try file.finish()
    }

    /// The port for metrics, if only an address is given.
    static let metricsPort: UInt16 = 9288
    /// Likewise of the page for people.
    static let viewPort: UInt16 = 8288

    private mutating func readStore(_ file: ConfigurationSection) {
        let store = file.value("store", .store, default: storePath)
        if store == ConfigurationKind<String>.etcdStore {
            etcd = EtcdConfiguration(reading: file.section("etcd"))
        } else {
            storePath = store
            if file.has("etcd") {
                _ = file.section("etcd")
                file.reject("etcd", "the section is of no use while `store` is a file", "write store: etcd, or remove the section")
            }
        }
    }

    /// Each may cost a signature check for a Bind that is for none of them.
    static let publicAddressesMax = 4

    /// One word, or a list of prefixes.
    private mutating func readAcceptedRelays(_ file: ConfigurationSection) {
        if file.isList("accept-relays") {
            acceptedRelays = .within(file.list("accept-relays", .prefix))
        } else {
            acceptedRelays = file.value("accept-relays", .relayWord, default: .any)
        }
    }

    private mutating func readPrefixes(_ file: ConfigurationSection) {
        let sections = file.sections("prefixes")
        for section in sections {
            let prefix = section.required("prefix", .prefix)
            let mobile = section.list("mobile-prefixes", .prefix)
            let strangers = section.value("subscribe-strangers", .bool, default: true)
            let mappings = section.value("mappings", .int(in: 0...100_000_000))
            let updates = section.value("updates-per-second", .int(in: 1...1_000_000), default: ServedPrefix.updatesPerSecondDefault)
            guard let prefix else { continue }
            if prefix.familyLength == 0 || !prefix.address.isUsableUnicast {
                section.reject("prefix", "\(prefix) holds addresses that no host can have", "list the prefixes that your reverse zones are for")
            }
            if let other = served.first(where: { $0.prefix.contains(prefix) || prefix.contains($0.prefix) }) {
                section.reject("prefix", "\(prefix) overlaps \(other.prefix), which is listed before", "keep the shorter of the two")
            }
            served.append(
                ServedPrefix(
                    prefix: prefix, mobilePrefixes: mobile, allowsStrangersToSubscribe: strangers, mappingsMax: mappings,
                    updatesPerSecond: updates))
        }
        if sections.isEmpty { file.reject("prefixes", "no prefix is served", "add at least one, as in - prefix: 192.0.2.0/24") }
    }

    private mutating func readRADIUS(_ file: ConfigurationSection) {
        for section in file.sections("radius") {
            guard let group = RADIUSConfiguration(reading: section) else { continue }
            for prefix in group.prefixes {
                if !served.contains(where: { $0.prefix.contains(prefix) || prefix.contains($0.prefix) }) {
                    section.reject("prefixes", "\(prefix) is not served here", "name prefixes that are listed in `prefixes`, or parts of them")
                }
                if let other = radius.first(where: { $0.authority.prefixes.contains { $0.contains(prefix) || prefix.contains($0) } }) {
                    section.reject("prefixes", "\(prefix) overlaps what \(other.name) is asked about", "name each prefix once")
                }
            }
            if radius.contains(where: { $0.name == group.name }) { section.reject("name", "\(group.name) is there already", "choose another") }
            radius.append(group)
        }
        if radius.count > RADIUSConfiguration.groupsMax {
            file.reject("radius", "\(radius.count) entries are listed", "list at most \(RADIUSConfiguration.groupsMax)")
        }
    }

    private mutating func readRelays(_ file: ConfigurationSection) {
        relays = file.list("relays", .relay)
        if relays.count > IMSRecord.relaysMax {
            file.reject(
                "relays", "\(relays.count) relays are listed", "list at most \(IMSRecord.relaysMax), each with all its addresses in one entry")
        }
    }

    private mutating func readVisitors(_ section: ConfigurationSection) {
        let pools = section.list("pools", .prefix)
        let sources = section.list("from", .prefix)
        var policy = VisitorPolicy(pools: pools, sources: sources)
        policy.homes = section.list("homes", .prefix)
        policy.lifetime = section.value("lifetime", .duration(in: .seconds(300)...VisitorPolicy.lifetimeMax), default: policy.lifetime)
        policy.leasesMax = section.value("leases", .int(in: 1...1_000_000))
        policy.leasesPerHomeMax = section.value("leases-per-home", .int(in: 1...1_000_000), default: policy.leasesPerHomeMax)
        policy.lookUpsPerSecond = section.value("look-ups-per-second", .int(in: 1...100_000), default: policy.lookUpsPerSecond)
        for (key, list, remedy) in [
            ("pools", pools, "list what visitors get addresses of, as in pools: [192.0.2.192/26]"),
            ("from", sources, "list the networks whose nodes are taken in, as in from: [192.0.2.0/25]"),
        ] {
            if list.isEmpty { section.reject(key, "none is listed, so that nobody could visit", remedy) }
            if list.count > VisitorPolicy.prefixesMax {
                section.reject(key, "more than \(VisitorPolicy.prefixesMax) are listed", "join some of them")
            }
        }
        for pool in pools where !served.contains(where: { $0.prefix.contains(pool) }) {
            section.reject("pools", "\(pool) is not within a prefix that is served here", "choose a part of one of `prefixes`")
        }
        if signingKeyPath == nil {
            section.reject("pools", "without `signing-key` this server can't give visitors certificates", "name the key's file, or remove `visitors`")
        }
        visitors = policy
    }

    private mutating func readLimits(_ section: ConfigurationSection) {
        func number(_ key: String, _ value: inout Int, _ range: ClosedRange<Int>) {
            value = section.value(key, .int(in: range), default: value)
        }
        let rates = 1...1_000_000
        number("updates-per-second", &limits.updatesPerSecond, rates)
        number("notifies-per-second", &limits.notifiesPerSecond, rates)
        number("notifies-pending", &limits.notifiesPendingMax, 1...1_000_000)
        number("queries-per-second", &limits.queriesPerSecond, rates)
        number("verifications-per-second", &limits.verificationsPerSecond, rates)
        number("stranger-verifications-per-second", &limits.strangerVerificationsPerSecond, rates)
        number("verifications-pending", &limits.verificationsPendingMax, 1...1_000_000)
        number("error-answers-per-second", &limits.errorAnswersPerSecond, rates)
        number("draft-answers-per-second", &limits.draftAnswersPerSecond, rates)
        number("messages-per-source", &limits.messagesPerSourcePerSecond, rates)
        limits.strangerMessagesPerSecond =
            section.value("stranger-messages-per-second", .int(in: 1...10_000_000)) ?? limits.strangerMessagesPerSecond
        limits.joinsPerSecond = section.value("joins-per-second", .int(in: 1...1_000_000)) ?? limits.joinsPerSecond
        // What a worker more brings in, a core more can look after.
        limits.inquiriesPerSecond = section.value(
            "inquiries-per-second", .int(in: rates), default: limits.inquiriesPerSecond * (threads ?? QueryPath.coresCount))
        number("inquiries-per-source", &limits.inquiriesPerSourceMax, 1...65_536)
        number("look-ups", &limits.lookUpsMax, 64...10_000_000)
        number("refusal-logs-per-second", &limits.refusalLogsPerSecond, rates)
        number("binding-logs-per-second", &limits.bindingLogsPerSecond, rates)
        number("subscriptions-per-source", &limits.subscriptionsPerSourceMax, 1...65_536)
        number("subscriptions", &limits.subscriptionsMax, 1...10_000_000)
        number("remembered", &limits.rememberedMax, 1...1_000_000)
        number("mappings", &limits.mappingsMax, 1...100_000_000)
        number("bindings", &limits.bindingsMax, 1...100_000_000)
        number("reachability-tests-per-second", &limits.reachabilityTestsPerSecond, rates)
        let seconds = section.value(
            "subscribe", .duration(in: .seconds(10) ... .seconds(300)), default: .seconds(Int(limits.subscribeSecondsMax)))
        limits.subscribeSecondsMax = UInt32(clamping: seconds.components.seconds)
        let notFound = section.value(
            "not-found", .duration(in: .seconds(1) ... .seconds(300)), default: .seconds(Int(limits.notFoundSeconds)))
        limits.notFoundSeconds = UInt32(clamping: notFound.components.seconds)
    }
}

extension ConfigurationKind where Value == String {
    static var etcdStore: String { "etcd" }

    /// The path of a file, or the word for a store that servers share.
    static var store: Self {
        Self { text in
            text == etcdStore || text.hasPrefix("/")
                ? .value(text)
                : .rejected(reason: "is neither an absolute path nor `etcd`", remedy: "write it from the root on, such as /var/lib/imsd/ims.db")
        }
    }
}

extension ConfigurationKind where Value == RelayPolicy {
    static var relayWord: Self {
        Self { text in
            switch text {
            case "any": .value(.any)
            case "none": .value(.none)
            default: .rejected(reason: "is neither `any` nor `none` nor a list of prefixes", remedy: "write, say, accept-relays: [203.0.113.0/24]")
            }
        }
    }
}
