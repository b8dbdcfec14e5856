import IMSCore
import MATControl
import MATCore
import MATDNS
import MATRuntime
import MATServer
import MATSignal
import MappingMemory

// What `mat` and other programs ask over the control socket. Answers are JSON; addresses and keys are text in them.

extension IMSServer {
    func answer(_ request: ControlRequest, _ respond: @escaping (ControlResponse) -> Void) {
        do throws(ControlError) {
            guard let command = IMSCommandName(rawValue: request.command) else {
                throw ControlError("imsd knows no command \"\(request.command)\"; are mat and imsd of one version?")
            }
            switch command {
            case .status: respond(.result(status()))
            case .list: respond(.result(try list(try request.arguments(as: ListRequest.self))))
            case .show: respond(.result(try show(try request.arguments(as: ShowRequest.self))))
            case .zone: respond(.result(try zone(try request.arguments(as: ZoneRequest.self))))
            case .enrol: try enrol(try request.arguments(as: EnrolRequest.self), respond)
            case .revoke: try revoke(try request.arguments(as: RevokeRequest<JSONValue>.self), respond)
            case .export: respond(.result(try export(try request.arguments(as: ExportRequest.self))))
            case .import: try `import`(try request.arguments(as: ImportRequest<JSONValue>.self), respond)
            case .metrics: respond(.result(metricsReport()))
            case .tokenCreate: try createToken(try request.arguments(as: TokenRequest.self), respond)
            case .tokenList: respond(.result(TokensReport(tokens: core.tokens.map(TokensReport.Token.init))))
            case .tokenRevoke: try revokeToken(try request.arguments(as: TokenRevokeRequest.self), respond)
            case .enrolled: respond(.result(try enrolled(try request.arguments(as: EnrolledRequest.self))))
            }
        } catch {
            respond(.failed(error.description))
        }
    }

    // MARK: status

    private func status() -> IMSStatusReport {
        var report = IMSStatusReport()
        report.version = MATVersion.text
        report.uptimeMilliseconds = (SystemClock.now().monotonic - started).millisecondsSaturated
        report.port = configuration.port
        report.prefixes = core.mappingsByPrefix.map { served, count in
            IMSStatusReport.Prefix(
                prefix: "\(served.prefix)", mobilePrefixes: served.mobilePrefixes.map(\.description), mappings: count,
                mappingsMax: served.mappingsMax, updatesPerSecondMax: served.updatesPerSecond)
        }
        report.keys = keys()
        report.canEnrol = core.canSign
        report.certificates = IMSStatusReport.Certificates(
            endingSoon: core.surveyed.certificatesEnding, ended: core.surveyed.certificatesEnded, revoked: core.surveyed.revoked)
        report.mappingsExpired = core.surveyed.mappingsExpired
        report.mappingsWithdrawn = core.surveyed.mappingsWithdrawn
        report.metrics = metricsListener.url("/metrics")
        report.store = IMSStatusReport.Store(
            path: store.place, lastFailure: storeFailure, isLoading: core.isLoading, unavailable: core.storeUnavailable)
        report.mappings = core.mappingsCount
        report.unseen = core.issued.unseenCount
        report.remembered = core.rememberedCount
        report.rememberedUnconfirmed = core.rememberedUnconfirmedCount
        report.subscriptions = core.subscriptionsCount
        report.bindings = core.bindingsCount
        report.verifiers = verifiers.threadsCount
        report.verificationsPending = core.verificationsPendingCount
        report.notifiesPending = core.notifiesPendingCount
        report.pushesPending = core.pushesPendingCount
        report.threads = queryPath?.threadsCount ?? 0
        report.mappingOctets = core.mappings.octetsCount
        report.datagrams = IMSStatusReport.Datagrams(
            received: queryPath?.total(.datagrams) ?? 0, passedToCore: queryPath?.total(.passedOn) ?? 0,
            lostBeforeCore: queryPath?.total(.overflowed) ?? 0)
        report.counters = countersReport()
        return report
    }

    private func countersReport() -> IMSStatusReport.Counters {
        let counters = totalCounters
        var report = IMSStatusReport.Counters()
        for (type, count) in counters.received { report.received[type.description] = count }
        for (type, count) in counters.sent { report.sent[type.description] = count }
        for (answer, count) in counters.answered {
            report.answered[answer.type.description, default: [:]][answer.code.description] = count
        }
        report.malformed = counters.malformed
        report.unknownTypes = counters.unknownTypes
        report.dropped = counters.dropped
        report.putOff = counters.putOff
        report.droppedAtGate = counters.droppedAtGate
        report.verifications = counters.verifications
        report.pushesUnanswered = counters.pushesUnanswered
        report.logLinesSuppressed = counters.logLinesSuppressed
        report.sendFailures = sendFailuresCount
        return report
    }

    private func keys() -> [IMSStatusReport.Key] {
        core.publicKeys.map { key in
            let use = core.isSigning(key) ? "signing" : core.isPrevious(key) ? "previous" : "accepted"
            return IMSStatusReport.Key(
                id: Self.hex(key.id), publicKey: KeyFile.write(key), use: use, certificates: core.surveyed.certificatesByKey[key.id] ?? 0)
        }
    }

    private func metricsReport() -> MetricsReport {
        let families = metrics.families(of: self, SystemClock.now())
        return MetricsReport(text: MetricText.write(families), families: families.map(\.report))
    }

    static func hex(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    // MARK: show

    /// The mapping, where it is from, and who subscribes to it.
    private func show(_ request: ShowRequest) throws(ControlError) -> MappingReport {
        let hoa = try Self.homeAddress(request.hoa)
        let now = SystemClock.now()
        if let stored = core.mapping(of: hoa) {
            var report = MappingReport(stored.certified, now, of: stored)
            report.subscribers = core.subscribers(of: hoa, now: now).map { "\($0)" }
            report.boundAt = core.boundEndpoint(of: hoa, now: now).map { "\($0)" }
            return report
        }
        if let certificate = core.issued[IPPrefix(hoa.address)] { return MappingReport(unseen: certificate, now) }
        if let remembered = core.rememberedMapping(of: hoa) {
            var report = MappingReport(remembered.mapping, now)
            report.isConfirmed = remembered.isConfirmed
            return report
        }
        throw ControlError("nothing is registered or remembered for \(hoa)")
    }

    private static func homeAddress(_ text: String?) throws(ControlError) -> HomeAddress {
        guard let text, let hoa = HomeAddress(text) else { throw ControlError("\"hoa\" must be an IP address, such as 192.0.2.1") }
        return hoa
    }

    // MARK: enrol

    private func enrol(_ request: EnrolRequest, _ respond: @escaping (ControlResponse) -> Void) throws(ControlError) {
        let hoa = try Self.homeAddress(request.hoa)
        guard let key = request.publicKey.flatMap(KeyFile.parsePublicKey) else {
            throw ControlError("\"publicKey\" must be the base64 of a 32-octet Ed25519 key; `mat keygen` prints it")
        }
        let longest = hoa.family.addressBits
        guard let length = UInt8(exactly: request.prefixLength ?? Int64(longest)), length > 0, length <= longest else {
            throw ControlError("\"prefixLength\" must be from 1 to \(longest)")
        }
        let seconds = request.lifetimeSeconds
        guard seconds.map({ $0 >= 60 && $0 <= 3650 * 86_400 }) ?? true else {
            throw ControlError("\"lifetime\" must be from 60 seconds to 3650 days")
        }
        let now = SystemClock.now()
        do throws(EnrolmentRefusal) {
            let (certificate, ticket, actions) = try core.enrol(
                hoa, prefixLength: length + hoa.family.leadingBits, key: key, lifetime: seconds.map { .seconds($0) },
                isForced: request.force ?? false, isRenewed: request.renewal ?? true, isClockConfirmed: SystemClock.isSynchronized, now: now)
            // Given out only when it is recorded: a certificate nobody remembers could not be superseded.
            awaited[ticket] = { [logger] failure in
                if let failure { return respond(.failed("the certificate could not be recorded: \(failure)")) }
                logger.notice(
                    "issued a certificate for \(certificate.prefix.shortText), valid until \(UTCTime.text(unixMilliseconds: certificate.notAfter))")
                respond(
                    .result(
                        EnrolmentReport(
                            certificate: Base64.write(certificate.octets), hoa: "\(certificate.hoa)", prefixLength: length,
                            notBeforeMilliseconds: certificate.notBefore, notAfterMilliseconds: certificate.notAfter,
                            keyID: Self.hex(certificate.issuerID))))
            }
            perform(actions)
        } catch {
            throw ControlError(error.description)
        }
    }

    // MARK: zone

    /// What the reverse zones of the own prefixes need.
    private func zone(_ request: ZoneRequest) throws(ControlError) -> ZoneReport {
        guard let target = request.target.flatMap({ DomainName($0) }) else {
            throw ControlError("\"target\" must be this server's name, such as ims1.example.net.")
        }
        let addresses = (request.addresses ?? []).map { IPAddress($0) }
        let existing = (request.existing ?? []).map { HomeAddress($0) }
        guard !addresses.contains(nil), !existing.contains(nil) else {
            throw ControlError("\"addresses\" and \"existing\" must be lists of IP addresses")
        }
        guard let form = ZoneWriter.Form(rawValue: request.form ?? ZoneWriter.Form.both.rawValue) else {
            throw ControlError("\"form\" must be one of \(ZoneWriter.Form.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        let record = IMSRecord(
            port: configuration.port, target: target, keys: core.publicKeys.map(\.octets), addresses: addresses.compactMap { $0 },
            relays: configuration.relays)
        let writer = ZoneWriter(servers: [record], form: form, ttl: UInt32(clamping: request.ttlSeconds ?? 300))
        return ZoneReport(lines: writer.lines(prefixes: core.servedPrefixes.map(\.prefix), existing: existing.compactMap { $0 }))
    }
}

extension MappingReport {
    init(_ certified: CertifiedMapping, _ now: Now, of stored: StoredMapping? = nil) {
        let record = certified.record
        self.init(hoa: record.prefix.length == 128 ? "\(record.hoa)" : "\(record.prefix)")
        locators = record.locators.map { Locator(moa: $0.prefixLength == 128 ? "\($0.moa)" : "\($0.prefix)", preference: $0.preference) }
        for place in record.places {
            switch place {
            case .endpoint(let endpoint, let preference):
                endpoints = (endpoints ?? []) + [Endpoint(endpoint: "\(endpoint)", preference: preference)]
            case .relay(let relay, let preference): relays = (relays ?? []) + [Endpoint(endpoint: "\(relay)", preference: preference)]
            case .moa, .unknown: break
            }
        }
        sequence = record.sequence
        issuedMilliseconds = record.issued
        expiresMilliseconds = record.expires
        isExpired = record.expires <= now.wallMilliseconds
        isWithdrawn = record.isWithdrawal
        isRegisteredHere = stored != nil
        isRevoked = stored?.isRevocation ?? false
        certificate = Certificate(certified.certificate, now)
        if let stored, !stored.isRevocation { updateSource = "\(stored.source)" }
        updatedAtMilliseconds = stored?.provenAt
    }

    /// An HoA that is enrolled and has never registered.
    init(unseen certificate: MATSignal.Certificate, _ now: Now) {
        self.init(hoa: certificate.prefix.shortText)
        isUnseen = true
        self.certificate = Certificate(certificate, now)
    }
}

extension MappingReport.Certificate {
    init(_ certificate: MATSignal.Certificate, _ now: Now) {
        self.init(
            id: IMSServer.hex(certificate.id.rawValue), issuer: IMSServer.hex(certificate.issuerID), endsSoon: certificate.endsSoon(now),
            notBeforeMilliseconds: certificate.notBefore, notAfterMilliseconds: certificate.notAfter, nodeKey: KeyFile.write(certificate.nodeKey))
    }
}
