import IMSCore
import MATSignal
import Testing

extension TestServer {
    /// Makes a token that gives from these prefixes; its id and secret are made of the number.
    @discardableResult
    func token(_ number: UInt8, _ gives: [String], _ change: (inout HeldToken) -> Void = { _ in }) throws -> JoinToken {
        let secret = try #require(TokenSecret([UInt8](repeating: number, count: 32)))
        var held = HeldToken(
            id: TokenID(rawValue: UInt64(number)), secret: secret, gives: gives.map { prefix($0) }, createdAt: now.wallMilliseconds)
        change(&held)
        let made = try core.create(held, now: now)
        perform(made.actions)
        return JoinToken(host: "ims1.example.net", id: held.id, secret: secret, server: issuer.publicKey)
    }
}
