import IMSCore
import MATCore
import MATDNS
import MATRuntime
import MATSignal
import MappingMemory

// What `mat` and other programs ask over the control socket. Answers are JSON; addresses and keys are text in them.

extension IMSServer {
    func answer(_ request: ControlRequest, _ respond: @escaping (ControlResponse) -> Void) {
        let arguments = request.arguments
        do throws(ControlError) {
            switch request.command {
            case "status": respond(.ok(status()))
            case "list": respond(.ok(try list(arguments)))
            case "show": respond(.ok(try show(arguments)))
            case "zone": respond(.ok(try zone(arguments)))
            case "enrol": try enrol(arguments, respond)
            case "revoke": try revoke(arguments, respond)
            case "export": respond(.ok(try export(arguments)))
            case "import": try `import`(arguments, respond)
            case "metrics": respond(.ok(metricsAnswer()))
            default: throw ControlError("imsd knows no command \"\(request.command)\"; are mat and imsd of one version?")
            }
        } catch {
            respond(.failed(error.description))
        }
    }

    // MARK: status

    private func status() -> JSONValue {
        let counters = totalCounters
        var received: [String: JSONValue] = [:]
        for (type, count) in counters.received { received[type.description] = .number(count) }
        var sent: [String: JSONValue] = [:]
        for (type, count) in counters.sent { sent[type.description] = .number(count) }
        var answered: [String: [String: JSONValue]] = [:]
        for (answer, count) in counters.answered {
            answered[answer.type.description, default: [:]][answer.code.description] = .number(count)
        }
        return [
            "version": .string(MATVersion.text),
            "uptimeSeconds": .number((SystemClock.now().monotonic - started).components.seconds),
            "port": .number(configuration.port),
            "prefixes": .array(
                core.mappingsByPrefix.map { served, count in
                    [
                        "prefix": .text(served.prefix), "mobilePrefixes": .array(served.mobilePrefixes.map { .text($0) }),
                        "mappings": .number(count), "mappingsMax": served.mappingsMax.map { .number($0) } ?? .null,
                        "updatesPerSecondMax": .number(served.updatesPerSecond),
                    ]
                }),
            "keys": .array(keys()),
            "canEnrol": .bool(core.canSign),
            "certificates": [
                "endingSoon": .number(core.surveyed.certificatesEnding), "ended": .number(core.surveyed.certificatesEnded),
                "revoked": .number(core.surveyed.revoked),
            ],
            "mappingsExpired": .number(core.surveyed.mappingsExpired), "mappingsWithdrawn": .number(core.surveyed.mappingsWithdrawn),
            "metrics": metricsListening.map { .string("http://\($0)/metrics") } ?? .null,
            "store": [
                "path": .string(store.place), "lastFailure": storeFailure.map { .string($0) } ?? .null,
                "isLoading": .bool(core.isLoading), "unavailable": core.storeUnavailable.map { .string($0) } ?? .null,
            ],
            "mappings": .number(core.mappingsCount), "unseen": .number(core.issued.unseenCount),
            "remembered": .number(core.rememberedCount),
            "rememberedUnconfirmed": .number(core.rememberedUnconfirmedCount),
            "subscriptions": .number(core.subscriptionsCount),
            "verifiers": .number(verifiers.threadsCount),
            "verificationsPending": .number(core.verificationsPendingCount),
            "notifiesPending": .number(core.notifiesPendingCount),
            "pushesPending": .number(core.pushesPendingCount),
            "threads": .number(queryPath?.threadsCount ?? 0),
            "mappingOctets": .number(core.mappings.octetsCount),
            "datagrams": [
                "received": .number(queryPath?.total(.datagrams) ?? 0), "passedToCore": .number(queryPath?.total(.passedOn) ?? 0),
                "lostBeforeCore": .number(queryPath?.total(.overflowed) ?? 0),
            ],
            "counters": [
                "received": .object(received), "sent": .object(sent), "answered": .object(answered.mapValues { .object($0) }),
                "malformed": .number(counters.malformed), "unknownTypes": .number(counters.unknownTypes),
                "dropped": .number(counters.dropped),
                "putOff": .number(counters.putOff), "droppedAtGate": .number(counters.droppedAtGate),
                "verifications": .number(counters.verifications), "pushesUnanswered": .number(counters.pushesUnanswered),
                "logLinesSuppressed": .number(counters.logLinesSuppressed), "sendFailures": .number(sendFailuresCount),
            ],
        ]
    }

    /// What each key is for, and how many certificates depend on it: a key can go when none does.
    private func keys() -> [JSONValue] {
        core.publicKeys.map { key in
            let use = core.isSigning(key) ? "signing" : core.isPrevious(key) ? "previous" : "accepted"
            return [
                "id": .string(Self.hex(key.id)), "publicKey": .string(KeyFile.write(key)), "use": .string(use),
                "certificates": .number(core.surveyed.certificatesByKey[key.id] ?? 0),
            ]
        }
    }

    /// `{text, families}`: as Prometheus reads it, and for programs.
    private func metricsAnswer() -> JSONValue {
        let families = metricFamilies()
        return ["text": .string(MetricText.write(families)), "families": .array(families.map(\.json))]
    }

    static func hex(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    // MARK: show

    /// `{hoa}` -> the mapping, where it is from, and who subscribes to it.
    private func show(_ arguments: [String: JSONValue]) throws(ControlError) -> JSONValue {
        let hoa = try homeAddress(arguments)
        let now = SystemClock.now()
        if let stored = core.mapping(of: hoa) {
            guard case .object(var result) = Self.describe(stored.certified, now, of: stored) else { return .null }
            result["subscribers"] = .array(core.subscribers(of: hoa, now: now).map { .text($0) })
            return .object(result)
        }
        if let certificate = core.issued[IPPrefix(hoa.address)] { return Self.describe(unseen: certificate, now) }
        if let remembered = core.rememberedMapping(of: hoa) {
            guard case .object(var result) = Self.describe(remembered.mapping, now) else { return .null }
            result["isConfirmed"] = .bool(remembered.isConfirmed)
            return .object(result)
        }
        throw ControlError("nothing is registered or remembered for \(hoa)")
    }

    static func describe(_ certified: CertifiedMapping, _ now: Now, of stored: StoredMapping? = nil) -> JSONValue {
        let record = certified.record
        var result: [String: JSONValue] = [
            "hoa": .text(record.prefix.length == 128 ? "\(record.hoa)" : "\(record.prefix)"),
            "locators": .array(
                record.locators.map {
                    ["moa": .text($0.prefixLength == 128 ? "\($0.moa)" : "\($0.prefix)"), "preference": .number($0.preference)]
                }),
            "sequence": .number(record.sequence), "issued": .number(record.issued), "expires": .number(record.expires),
            "isExpired": .bool(record.expires <= now.wallMilliseconds), "isWithdrawn": .bool(record.isWithdrawal),
            "isRegisteredHere": .bool(stored != nil), "isRevoked": .bool(stored?.isRevocation ?? false),
            "certificate": describe(certified.certificate, now),
        ]
        if let stored, !stored.isRevocation {
            result["updateSource"] = .text(stored.source)
        }
        if let stored { result["updatedAt"] = .number(stored.provenAt) }
        return .object(result)
    }

    private static func describe(_ certificate: Certificate, _ now: Now) -> JSONValue {
        [
            "id": .string(hex(certificate.id.rawValue)), "issuer": .string(hex(certificate.issuerID)),
            "endsSoon": .bool(certificate.endsSoon(now)), "notBefore": .number(certificate.notBefore), "notAfter": .number(certificate.notAfter),
            "nodeKey": .string(KeyFile.write(certificate.nodeKey)),
        ]
    }

    /// An HoA that is enrolled and has never registered: all that is known is its certificate.
    static func describe(unseen certificate: Certificate, _ now: Now) -> JSONValue {
        [
            "hoa": .string(certificate.prefix.shortText), "locators": [], "isUnseen": true, "isExpired": false, "isWithdrawn": false,
            "isRegisteredHere": false, "isRevoked": false, "certificate": describe(certificate, now),
        ]
    }

    private func homeAddress(_ arguments: [String: JSONValue]) throws(ControlError) -> HomeAddress {
        guard let text = arguments["hoa"]?.string, let hoa = HomeAddress(text) else {
            throw ControlError("\"hoa\" must be an IP address, such as 192.0.2.1")
        }
        return hoa
    }

    // MARK: enrol

    /// `{hoa, prefixLength?, publicKey, lifetime?, force?}` -> `{certificate, hoa, prefixLength, notBefore, notAfter, keyID}`; `prefixLength` as
    /// people write it (24 for an IPv4 /24), `lifetime` in seconds, times in Unix milliseconds.
    private func enrol(_ arguments: [String: JSONValue], _ respond: @escaping (ControlResponse) -> Void) throws(ControlError) {
        let hoa = try homeAddress(arguments)
        guard let key = arguments["publicKey"]?.string.flatMap(KeyFile.parsePublicKey) else {
            throw ControlError("\"publicKey\" must be the base64 of a 32-octet Ed25519 key; `mat keygen` prints it")
        }
        let longest: Int64 = hoa.isIPv4 ? 32 : 128
        let length = arguments["prefixLength"]?.int ?? longest
        guard length > 0, length <= longest else { throw ControlError("\"prefixLength\" must be from 1 to \(longest)") }
        let seconds = arguments["lifetime"]?.int
        guard seconds.map({ $0 >= 60 && $0 <= 3650 * 86_400 }) ?? true else {
            throw ControlError("\"lifetime\" must be from 60 seconds to 3650 days")
        }
        let now = SystemClock.now()
        do throws(EnrolmentRefusal) {
            let (certificate, ticket, actions) = try core.enrol(
                hoa, prefixLength: UInt8(clamping: hoa.isIPv4 ? length + 96 : length), key: key, lifetime: seconds.map { .seconds($0) },
                isForced: arguments["force"]?.bool ?? false, isClockConfirmed: SystemClock.isSynchronized, now: now)
            // Given out only when it is recorded: a certificate nobody remembers could not be superseded.
            awaited[ticket] = { [logger] failure in
                if let failure { return respond(.failed("the certificate could not be recorded: \(failure)")) }
                logger.notice("issued a certificate for \(certificate.prefix), valid until \(certificate.notAfter / 1000) s")
                respond(
                    .ok([
                        "certificate": .string(Base64.write(certificate.octets)), "hoa": .text(certificate.hoa),
                        "prefixLength": .number(length),
                        "notBefore": .number(certificate.notBefore), "notAfter": .number(certificate.notAfter),
                        "keyID": .string(Self.hex(certificate.issuerID)),
                    ]))
            }
            perform(actions)
        } catch {
            throw ControlError(error.description)
        }
    }

    // MARK: zone

    /// `{target, addresses?, form?, ttl?, existing?}` -> `{lines}`: what the reverse zones of the own prefixes need.
    private func zone(_ arguments: [String: JSONValue]) throws(ControlError) -> JSONValue {
        guard let target = arguments["target"]?.string.flatMap({ DomainName($0) }) else {
            throw ControlError("\"target\" must be this server's name, such as ims1.example.net.")
        }
        let addresses = (arguments["addresses"]?.array ?? []).map { $0.string.flatMap { IPAddress($0) } }
        let existing = (arguments["existing"]?.array ?? []).map { $0.string.flatMap { HomeAddress($0) } }
        guard !addresses.contains(nil), !existing.contains(nil) else {
            throw ControlError("\"addresses\" and \"existing\" must be lists of IP addresses")
        }
        let word = arguments["form"]?.string ?? ZoneWriter.Form.both.rawValue
        guard let form = ZoneWriter.Form(rawValue: word) else {
            throw ControlError("\"form\" must be one of \(ZoneWriter.Form.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        let ttl = UInt32(clamping: arguments["ttl"]?.int ?? 300)
        let record = IMSRecord(
            port: configuration.port, target: target, keys: core.publicKeys.map(\.octets), addresses: addresses.compactMap { $0 })
        let writer = ZoneWriter(servers: [record], form: form, ttl: ttl)
        return [
            "lines": .array(
                writer.lines(prefixes: core.servedPrefixes.map(\.prefix), existing: existing.compactMap { $0 }).map { .string($0) })
        ]
    }
}
