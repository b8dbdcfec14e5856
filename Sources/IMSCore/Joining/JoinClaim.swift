import MATSignal

/// That who sends a Join has the key that he names: what is signed, and the signature.
public struct JoinClaim: Hashable, Sendable {
    public let statement: JoinStatement
    public let signature: Signature

    func verify() throws(VerificationFailure) {
        guard statement.isSigned(signature) else {
            throw VerificationFailure("the Join is not signed with the key that it names, for this server and this cookie")
        }
    }
}
