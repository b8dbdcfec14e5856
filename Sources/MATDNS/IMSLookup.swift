import MATCore
import MATSignal

/// Finds the IMSs of a home address in DNS (protocol.md section 8): type IMS at the reverse name, or SRV and TXT below it, then
/// the addresses of targets that came without.
///
/// Both forms are asked for at once: for a plain destination, whose first packet waits for this, the second question would
/// otherwise cost another round trip.
public final class IMSLookup {
    public let resolver: Resolver

    public init(resolver: Resolver) { self.resolver = resolver }

    /// Calls back once; before this returns if everything is cached.
    public func lookup(_ hoa: HomeAddress, completion: @escaping (IMSLookupResult) -> Void) {
        lookup(at: .reverse(hoa), completion: completion)
    }

    /// For the certificate of a prefix, at the prefix's own name.
    public func lookup(prefix: IPPrefix, completion: @escaping (IMSLookupResult) -> Void) {
        lookup(at: .reverse(prefix), completion: completion)
    }

    public func lookup(at name: DomainName, completion: @escaping (IMSLookupResult) -> Void) {
        let task = IMSLookupTask(resolver: resolver, completion: completion)
        task.start(name)
    }
}

/// One look-up in progress. The closures of its questions keep it alive.
private final class IMSLookupTask {
    /// Targets without a hint whose addresses are asked for, those to be tried first. A stranger's zone can name many, anywhere, and make
    /// one question of his into two of ours for each.
    static let targetsAskedMax = 4

    private let resolver: Resolver
    private var completion: ((IMSLookupResult) -> Void)?
    private var record: DNSResult?
    private var service: DNSResult?
    private var text: DNSResult?
    private var serviceName = DomainName.root

    private var servers: [IMSHost] = []
    private var keys: [[UInt8]] = []
    private var relays: [RelayHost] = []
    private var expires = MonotonicTime.distantFuture
    private var isAuthenticated = true
    private var openQuestions = 0
    private var addressFailure: DNSFailure?

    init(resolver: Resolver, completion: @escaping (IMSLookupResult) -> Void) {
        self.resolver = resolver
        self.completion = completion
    }

    private static func result(of failure: DNSFailure) -> IMSLookupResult {
        failure.isDistrust ? .unusable(failure.description) : .failed(failure.description)
    }

    private func finish(_ result: IMSLookupResult) {
        completion?(result)
        completion = nil
    }

    func start(_ name: DomainName) {
        resolver.resolve(DNSQuestion(name, .ims)) { [self] in
            record = $0
            decide()
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
        switch (record, service) {
        case (.records(let records)?, _):
            recordsFound(records)
        case (.absent(let absence)?, _) where absence.isNameAbsent:
            finish(.absent(until: absence.expires))
        case (.absent?, .records(let records)?), (.failed?, .records(let records)?):
            // A server that chokes on unknown types may still serve the other form.
            serviceFound(records)
        case (.absent(let first)?, .absent(let second)?):
            finish(.absent(until: min(first.expires, second.expires)))
        case (.failed(let first)?, .failed(let second)?):
            finish(Self.result(of: second.isDistrust ? second : first))
        case (.failed(let failure)?, .absent?), (.absent?, .failed(let failure)?):
            finish(Self.result(of: failure))
        case (nil, _), (_, nil):
            break
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
