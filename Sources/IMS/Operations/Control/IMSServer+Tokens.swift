import IMSCore
import MATControl
import MATRuntime
import MATSignal
import MappingMemory

// Tokens by which nodes join, and what was given to whom.

extension IMSServer {
    func createToken(_ request: TokenRequest, _ respond: @escaping (ControlResponse) -> Void) throws(ControlError) {
        let gives = (request.gives ?? []).map { IPPrefix($0) }
        guard !gives.isEmpty, !gives.contains(nil), gives.count <= HeldToken.givesMax else {
            throw ControlError("\"gives\" must be a list of 1 to \(HeldToken.givesMax) prefixes or addresses, such as 192.0.2.0/24")
        }
        guard let host = request.host ?? core.configuration.publicAddresses.first.map({ "\($0)" }) else {
            throw ControlError(
                "nodes have to know where this server is: name the host (--host), or `public-addresses` in imsd.yaml, of which the first is the default"
            )
        }
        guard JoinToken.isHost(host) else {
            throw ControlError(
                "\"\(host)\" is no host's name and no address: nodes could not find this server by it; write ims1.example.net, or an address")
        }
        let now = SystemClock.now()
        guard let secret = TokenSecret(Self.randomOctets() + Self.randomOctets()), let key = core.configuration.signingKey?.publicKey else {
            throw ControlError("this server has no signing key; make tokens where the key is kept")
        }
        let id = TokenID(rawValue: Self.randomOctets().prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
        var token = HeldToken(id: id, secret: secret, gives: gives.compactMap { $0 }, createdAt: now.wallMilliseconds)
        if let uses = request.uses {
            guard let uses = UInt32(exactly: uses), uses > 0 else { throw ControlError("\"uses\" must be from 1 to \(UInt32.max)") }
            token.usesMax = uses
        }
        token.expiresAt = try Self.seconds(request.expiresInSeconds, "expiresInSeconds").map { now.wallMilliseconds + $0 * 1000 }
        token.certificateSeconds = try Self.seconds(request.certificateSeconds, "certificateSeconds")
        token.isRenewed = request.isRenewed ?? true
        let text = JoinToken(host: host, port: UInt16(clamping: configuration.port), id: id, secret: secret, server: key).text
        do throws(TokenRefusal) {
            let (ticket, actions) = try core.create(token, now: now)
            // Given out only when it is recorded: nobody could join with one that a restart forgets.
            awaited[ticket] = { [logger] failure in
                if let failure { return respond(.failed("the token could not be recorded: \(failure)")) }
                logger.notice("made token \(id), for \(token.gives.map(\.shortText).joined(separator: ", "))")
                respond(.result(TokenReport(token: text, id: "\(id)")))
            }
            perform(actions)
        } catch {
            throw ControlError(error.description)
        }
    }

    private static func seconds(_ given: Int64?, _ name: String) throws(ControlError) -> UInt64? {
        guard let given else { return nil }
        guard given >= 60, given <= 3650 * 86_400 else { throw ControlError("\"\(name)\" must be from 60 seconds to 3650 days") }
        return UInt64(given)
    }

    func revokeToken(_ request: TokenRevokeRequest, _ respond: @escaping (ControlResponse) -> Void) throws(ControlError) {
        guard let id = request.id.flatMap({ TokenID($0) }) else {
            throw ControlError("\"id\" must be 16 hexadecimal digits, as `mat ims token list` prints")
        }
        func answer(_ core: IMSCore) -> ControlResponse {
            .result(TokensReport(tokens: core.tokens.filter { $0.id == id }.map(TokensReport.Token.init)))
        }
        do throws(TokenRefusal) {
            guard let (ticket, actions) = try core.revokeToken(id, now: SystemClock.now()) else { return respond(answer(core)) }
            awaited[ticket] = { [weak self, logger] failure in
                if let failure { return respond(.failed("the revocation could not be recorded: \(failure)")) }
                logger.notice("revoked token \(id)")
                if let self { respond(answer(self.core)) }
            }
            perform(actions)
        } catch {
            throw ControlError(error.description)
        }
    }

    func enrolled(_ request: EnrolledRequest) throws(ControlError) -> EnrolledReport {
        let after = request.after.map { IPPrefix($0) }
        if let after, after == nil { throw ControlError("\"after\" must be a prefix or an address") }
        let count = request.count ?? 100
        guard (1...1000).contains(count) else { throw ControlError("\"count\" must be from 1 to 1000") }
        let page = core.givenPage(after: after ?? nil, count: count)
        let homes = page.given.map { lease in
            let certificate = core.issued[lease.prefix].flatMap { $0.nodeKey == lease.key ? $0 : nil }
            let mapping = core.mapping(of: HomeAddress(lease.prefix.address)).flatMap {
                $0.record.prefix == lease.prefix && !$0.isRevocation && $0.certified.certificate.nodeKey == lease.key ? $0 : nil
            }
            return EnrolledReport.Home(
                home: lease.prefix.shortText, publicKey: KeyFile.write(lease.key), certificate: certificate.map { Self.hex($0.id.rawValue) },
                by: "\(lease.origin)", givenAtMilliseconds: lease.givenAt, validUntilMilliseconds: certificate?.notAfter,
                renewal: lease.isRenewed, lastSeenMilliseconds: mapping?.provenAt)
        }
        return EnrolledReport(homes: homes, next: page.next.map { "\($0)" })
    }
}

extension TokensReport.Token {
    init(_ token: HeldToken) {
        self.init(
            id: "\(token.id)", gives: token.gives.map(\.shortText), uses: token.uses, usesMax: token.usesMax,
            createdAtMilliseconds: token.createdAt, expiresAtMilliseconds: token.expiresAt,
            // Beyond all bounds if the store is damaged.
            certificateMilliseconds: token.certificateSeconds.map { $0 > .max / 1000 ? .max : $0 * 1000 },
            renewal: token.isRenewed, revokedAtMilliseconds: token.revokedAt)
    }
}
