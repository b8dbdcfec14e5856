import MATSignal

/// A PATH-SIGNATURE as it came, and what it may be over. What is signed names the server's address as the node knows it, which the message does
/// not repeat; so each own address is tried.
public struct PathClaim: Hashable, Sendable {
    public var signature: Signature
    public var statements: [PathStatement]

    func verify(by key: PublicKey) throws(VerificationFailure) {
        guard !statements.contains(where: { $0.isSigned(signature, by: key) }) else { return }
        let destinations = statements.map { "\($0.destination)" }.joined(separator: " or ")
        throw VerificationFailure("PATH-SIGNATURE does not fit the certified key, this cookie and the destination \(destinations)")
    }
}

extension ServerView {
    /// What a node says by signing its way to this server (section 11, PATH-SIGNATURE).
    ///
    /// - Parameter cookie: the server's own, for the request's source, of at most 300 s.
    func claim(_ signature: Signature, of hoa: HomeAddress, _ request: Request, _ cookie: ServerCookie) -> PathClaim {
        let others = configuration.publicAddresses.filter { $0.family == request.local.family && $0 != request.local }
        let statements = ([request.local] + others).map { own in
            PathStatement(
                request.type, by: hoa, to: own, at: Endpoint(own, port: configuration.port),
                cookie: Challenge(client: request.clientCookie, server: cookie))
        }
        return PathClaim(signature: signature, statements: statements)
    }
}
