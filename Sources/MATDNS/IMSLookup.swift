import MATCore
import MATRuntime
import MATSignal

/// Finds the IMSs of a home address in DNS (protocol.md section 8): type IMS at the reverse name, or SRV and TXT below it, then
/// the addresses of targets that came without.
///
/// Both forms are asked for at once: for a plain destination, whose first packet waits for this, the second question would
/// otherwise cost another round trip.
///
/// A reverse name may be an alias (CNAME) into another zone, as those of prefixes longer than /24 are (RFC 2317):
///
/// ```
///   65.2.0.192.in-addr.arpa  CNAME  65.64/26.2.0.192.in-addr.arpa     type IMS there: its answer follows the alias by itself
///   _mat-ims._udp.65.2.0.192.in-addr.arpa                             is absent: an alias does not speak for what is below it
///   _mat-ims._udp.65.64/26.2.0.192.in-addr.arpa                       so SRV and TXT are asked for below the alias's end too
/// ```
/// Where type IMS can't be had of the name, for a server that chokes on it or a resolver that follows no aliases, these are asked for by
/// themselves, and both forms at their end.
public final class IMSLookup {
    public let resolver: Resolver

    public init(resolver: Resolver) { self.resolver = resolver }

    /// Calls back once; before this returns if everything is cached.
    public func lookup(_ hoa: HomeAddress, completion: @escaping (IMSLookupResult) -> Void) {
        lookup(at: .reverse(hoa), completion: completion)
    }

    /// SRV and TXT alone, whatever there is of type IMS; for comparing them.
    package func lookupService(at name: DomainName, completion: @escaping (IMSLookupResult) -> Void) {
        IMSLookupTask(name, resolver: resolver, completion: completion).start(isServiceAlone: true)
    }

    /// For the certificate of a prefix, at the prefix's own name.
    public func lookup(prefix: IPPrefix, completion: @escaping (IMSLookupResult) -> Void) {
        lookup(at: .reverse(prefix), completion: completion)
    }

    public func lookup(at name: DomainName, completion: @escaping (IMSLookupResult) -> Void) {
        IMSLookupTask(name, resolver: resolver, completion: completion).start()
    }
}

/// One look-up in progress. The closures of its questions keep it alive.
private final class IMSLookupTask {
    /// Targets without a hint whose addresses are asked for, those to be tried first. A stranger's zone can name many, anywhere, and make
    /// one question of his into two of ours for each.
    static let targetsAskedMax = 4

    private let resolver: Resolver
    private var completion: ((IMSLookupResult) -> Void)?
    /// Where both forms are looked for: the end of the aliases, once they were asked for by themselves.
    private var name: DomainName
    private var record: DNSResult?
    private var service: DNSResult?
    private var serviceName = DomainName.root
    /// Below the end of the aliases that the answer about type IMS told of; `nil` if it told of none.
    private var aliasServiceName: DomainName?
    private var aliasService: DNSResult?
    /// The name that was an alias of `name`, if they were asked for by themselves.
    private var original: DomainName?

    private var servers: [IMSHost] = []
    private var keys: [[UInt8]] = []
    private var relays: [RelayHost] = []
    private var expires = MonotonicTime.distantFuture
    private var isAuthenticated = true
    private var openQuestions = 0
    private var addressFailure: DNSFailure?

    init(_ name: DomainName, resolver: Resolver, completion: @escaping (IMSLookupResult) -> Void) {
        self.name = name
        self.resolver = resolver
        self.completion = completion
    }

    /// Why a question could not be answered, and of which name.
    private func words(_ failure: DNSFailure) -> String {
        original.map { "\($0) is an alias of \(name), and of that \(failure)" } ?? failure.description
    }

    private func result(of failure: DNSFailure) -> IMSLookupResult { failure.isDistrust ? .unusable(words(failure)) : .failed(words(failure)) }

    private func finish(_ result: IMSLookupResult) {
        completion?(result)
        completion = nil
    }

    func start(isServiceAlone: Bool = false) {
        if isServiceAlone {
            record = .absent(DNSAbsence(isNameAbsent: false, expires: .distantFuture))
        } else {
            resolver.resolve(DNSQuestion(name, .ims)) { [self] in
                record = $0
                decide()
            }
        }
        guard completion != nil, !isRecordConclusive else { return }
        guard let serviceName = name.prefixed("_mat-ims", "_udp") else {
            return finish(.failed("\(name) is too long for _mat-ims._udp"))
        }
        self.serviceName = serviceName
        resolver.resolve(DNSQuestion(serviceName, .srv)) { [self] in
            service = $0
            decide()
        }
    }

    /// Records of type IMS need no second form; and where the name itself is absent, there is nothing below it either.
    private var isRecordConclusive: Bool {
        switch record {
        case .records?: true
        case .absent(let absence)?: absence.isNameAbsent
        default: false
        }
    }

    // MARK: From answers to servers

    private func decide() {
        guard completion != nil, openQuestions == 0, servers.isEmpty else { return }
        switch record {
        case nil: return
        case .records(let records)?: return recordsFound(records)
        case .absent(let absence)? where absence.isNameAbsent: return finish(.absent(until: absence.expires))
        case .absent(let absence)?:
            if let alias = absence.alias, !absence.isAliasAbsent, aliasServiceName == nil, let below = alias.prefixed("_mat-ims", "_udp") {
                return ask(below, absence)
            }
        case .failed?: break
        }
        guard let service else { return }
        // A server that chokes on unknown types may still serve the other form.
        if case .records(let records) = service { return serviceFound(records) }
        if let aliasServiceName {
            guard let aliasService else { return }
            if case .records(let records) = aliasService {
                serviceName = aliasServiceName
                return serviceFound(records)
            }
        }
        nothingFound([record, service, aliasService].compactMap { $0 })
    }

    /// Asks for the other form below the end of aliases.
    private func ask(_ below: DomainName, _ absence: DNSAbsence) {
        aliasServiceName = below
        // What is found there counts no longer than the word that it is the same name.
        expires = min(expires, absence.expires)
        isAuthenticated = isAuthenticated && absence.isAuthenticated
        resolver.resolve(DNSQuestion(below, .srv)) { [self] in
            aliasService = $0
            decide()
        }
    }

    private func nothingFound(_ results: [DNSResult]) {
        var failures: [DNSFailure] = []
        var until = MonotonicTime.distantFuture
        for result in results {
            switch result {
            case .failed(let failure): failures.append(failure)
            case .absent(let absence): until = min(until, absence.expires)
            case .records: break
            }
        }
        guard let failure = failures.first(where: \.isDistrust) ?? failures.first else { return finish(.absent(until: min(until, expires))) }
        // The zone is there, and has no record of type IMS: a resolver (dnsmasq) remembered the absence of SRV in it, and forgot the SOA.
        if case .absent? = record, failures.allSatisfy({ $0 == .unproven }) {
            return finish(.absent(until: min(until, expires, SystemClock.now().monotonic + DNSMessage.absenceTTLWithoutSOA)))
        }
        // Its cause may be where an alias leads; also that of distrust, which may concern only one of the zones.
        func mayBeOfAlias(_ failure: DNSFailure) -> Bool { failure.isAnswer || failure.isDistrust }
        guard case .failed(let first)? = record, mayBeOfAlias(first), failures.allSatisfy(mayBeOfAlias), original == nil else {
            return finish(result(of: failure))
        }
        openQuestions = 1
        resolver.resolveAliases(of: name) { [self] in
            openQuestions = 0
            guard case .end(let alias) = $0 else { return finish(result(of: failure)) }
            original = name
            (name, record, service) = (alias.name, nil, nil)
            expires = min(expires, alias.expires)
            isAuthenticated = isAuthenticated && alias.isAuthenticated
            start()
        }
    }

    private func recordsFound(_ records: DNSRecords) {
        addValidity(of: records)
        var mistake: String?
        for rdata in records.rdata.prefix(IMSSet.serversMax) {
            do throws(DNSError) {
                let record = try IMSRecord.decode(rdata)
                add(keys: record.keys)
                add(relays: record.relays)
                add(record.priority, record.weight, record.port, record.target, record.addresses)
            } catch {
                mistake = error.description
            }
        }
        guard !servers.isEmpty else { return finish(.unusable(mistake ?? "no IMS record has a port")) }
        resolveTargets()
    }

    private func serviceFound(_ records: DNSRecords) {
        addValidity(of: records)
        for rdata in records.rdata.prefix(IMSSet.serversMax) {
            var name = rdata.dropFirst(6)
            guard rdata.count > 6, let target = try? DomainName.decode(&name), name.isEmpty, target != .root else { continue }
            let numbers = stride(from: 0, to: 6, by: 2).map { UInt16(rdata[$0]) << 8 | UInt16(rdata[$0 + 1]) }
            add(numbers[0], numbers[1], numbers[2], target, [])
        }
        guard !servers.isEmpty else {
            // RFC 2782: the target "." says that the service is decidedly not available.
            let isRefusal = records.rdata.allSatisfy { $0.count == 7 && $0.last == 0 }
            return finish(
                isRefusal ? .absent(until: records.expires) : .unusable("the SRV records at \(serviceName) are malformed"))
        }
        openQuestions = 1
        resolver.resolve(DNSQuestion(serviceName, .txt)) { [self] in
            openQuestions = 0
            keysFound($0)
        }
    }

    private func keysFound(_ result: DNSResult) {
        switch result {
        case .records(let records):
            addValidity(of: records)
            for rdata in records.rdata { add(keys: KeyText.parse(rdata).map { [$0] } ?? []) }
            if keys.isEmpty { return finish(.unusable("no TXT at \(serviceName) has the form ed25519=<base64>")) }
            resolveTargets()
        case .absent:
            finish(.unusable("there is a SRV at \(serviceName) but no TXT with its key"))
        case .failed(let failure):
            finish(.unusable("there is a SRV at \(serviceName), but its key can't be had: \(failure)"))
        }
    }

    /// What is found counts until the first of its records runs out, and is authenticated if all of them are.
    private func addValidity(of records: DNSRecords) {
        expires = min(expires, records.expires)
        isAuthenticated = isAuthenticated && records.isAuthenticated
    }

    private func add(keys new: [[UInt8]]) {
        for key in new where !keys.contains(key) && keys.count < IMSRecord.keysMax { keys.append(key) }
    }

    private func add(relays new: [RelayHost]) {
        for relay in new where relays.count < IMSSet.relaysMax {
            let usable = RelayHost(relay.endpoints.filter { $0.address.isUsableUnicast && $0.port != 0 })
            if !usable.endpoints.isEmpty, !relays.contains(usable) { relays.append(usable) }
        }
    }

    private func add(_ priority: UInt16, _ weight: UInt16, _ port: UInt16, _ target: DomainName, _ addresses: [IPAddress]) {
        guard port != 0 else { return }
        servers.append(IMSHost(priority: priority, weight: weight, addresses: [], port: port, target: target))
        add(addresses: addresses, to: servers.count - 1)
    }

    private func add(addresses: [IPAddress], to index: Int) {
        for address in addresses where !address.isUnspecified && !address.isMulticast && !address.isBroadcast {
            guard servers[index].addresses.count < IMSSet.addressesPerServerMax else { return }
            if !servers[index].addresses.contains(address) { servers[index].addresses.append(address) }
        }
    }

    // MARK: Addresses

    private func resolveTargets() {
        let unhinted = servers.indices.filter { servers[$0].addresses.isEmpty && servers[$0].target != .root }
            .sorted { servers[$0].priority < servers[$1].priority }.prefix(Self.targetsAskedMax)
        // Counted before the first is asked: cached answers come at once.
        openQuestions = 2 * unhinted.count
        if openQuestions == 0 { return complete() }
        for index in unhinted {
            for type in [DNSType.a, .aaaa] {
                resolver.resolve(DNSQuestion(servers[index].target, type)) { [self] in
                    addressesFound($0, index)
                    openQuestions -= 1
                    if openQuestions == 0 { complete() }
                }
            }
        }
    }

    private func addressesFound(_ result: DNSResult, _ index: Int) {
        switch result {
        case .records(let records):
            addValidity(of: records)
            add(addresses: records.rdata.compactMap { IPAddress(octets: $0) }, to: index)
        case .absent:
            break
        case .failed(let failure):
            addressFailure = failure
        }
    }

    private func complete() {
        let usable = servers.filter { !$0.addresses.isEmpty }
        guard !usable.isEmpty else {
            // Not absence: the address does belong to a MAT node, of which we just can't reach a server.
            let names = servers.map(\.target.description).joined(separator: ", ")
            return finish(
                .unusable(addressFailure.map { "the IMS \(names) has no address that can be found: \($0)" } ?? "the IMS \(names) has no address"))
        }
        if keys.isEmpty { return finish(.unusable("no IMS record has a key")) }
        finish(.found(IMSSet(servers: usable, keys: keys, relays: relays, expires: expires, isAuthenticated: isAuthenticated)))
    }
}

/// `ed25519=<base64>` in a TXT record.
package enum KeyText {
    /// - Returns: the key's 32 octets; `nil` for any other text.
    package static func parse(_ rdata: [UInt8]) -> [UInt8]? {
        // Character strings, each with its length in front; a long text may be cut into several.
        var text = [UInt8]()
        var rest = rdata[...]
        while let length = rest.popFirst() {
            guard rest.count >= Int(length) else { return nil }
            text += rest.prefix(Int(length))
            rest = rest.dropFirst(Int(length))
        }
        let name = Array("ed25519=".utf8)
        guard lowercased(text.prefix(name.count)) == name, let key = Base64.parse(text.dropFirst(name.count)),
            key.count == IMSRecord.keyOctets
        else { return nil }
        return key
    }
}
