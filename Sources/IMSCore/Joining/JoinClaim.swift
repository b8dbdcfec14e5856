import MATSignal

/// That who sends a Join has the key that he names: what is signed, and the signature.
public struct JoinClaim: Hashable, Sendable {
    /// One for each key of this server that its sender may know it by; a token says which.
    public let statements: [JoinStatement]
    public let signature: Signature

    init(statement: JoinStatement, signature: Signature) { self.init(oneOf: [statement], signature: signature) }

    init(oneOf statements: [JoinStatement], signature: Signature) {
        self.statements = statements
        self.signature = signature
    }

    func verify() throws(VerificationFailure) {
        guard statements.contains(where: { $0.isSigned(signature) }) else {
            throw VerificationFailure("the Join is not signed with the key that it names, for this server and this cookie")
        }
    }
}
