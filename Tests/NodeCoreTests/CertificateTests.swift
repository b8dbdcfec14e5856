import MATSignal
import MATTesting
import NodeCore
import Testing

@Suite("Own certificates") struct CertificateTests {
    typealias H = NodeHarness

    private func registered() throws -> NodeHarness {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        return node
    }

    private func renewed(_ node: NodeHarness, by authority: TestAuthority) -> Certificate {
        authority.certify(node.own.hoa, node.own.key.publicKey, notBefore: node.wall + 1)
    }

    private func kept(_ node: NodeHarness) -> [Certificate] {
        node.actions.compactMap { if case .keepCertificate(let certificate) = $0 { certificate } else { nil } }
    }

    @Test("A renewed certificate is kept and used from the next registration on")
    func renewal() throws {
        let node = try registered()
        let certificate = renewed(node, by: node.ownAuthority)
        try node.answerUpdate(certificate: certificate)
        #expect(kept(node) == [certificate])
        node.advance(.seconds(301))
        let update = try #require(try node.take(.imsUpdate).update)
        #expect(update.record.certificate == .id(certificate.id))
    }

    @Test("A renewal whose answer was lost comes with the refusal of the old certificate, and the node goes on under it")
    func lostRenewal() throws {
        let node = try registered()
        let certificate = renewed(node, by: node.ownAuthority)
        try node.answerUpdate(.authenticationFailed, certificate: certificate)
        #expect(kept(node) == [certificate])
        #expect(node.sent.first { $0.message.type == .imsUpdate }?.update?.record.certificate == .id(certificate.id))
        try node.answerUpdate()
        #expect(node.core.isRegistered)
    }

    @Test("A renewed certificate that no IMS key in the DNS has signed is not taken, and the keys are looked up anew")
    func forged() throws {
        let node = try registered()
        node.lookUps = []
        try node.answerUpdate(certificate: renewed(node, by: TestAuthority(seed: 99)))
        #expect(kept(node).isEmpty && node.core.isRegistered)
        #expect(node.lookUps == [node.own.hoa])
        node.foundOwn()
        node.advance(.seconds(301))
        let update = try #require(try node.take(.imsUpdate).update)
        #expect(update.record.certificate == .id(node.own.certificate.id))
    }

    @Test("A certificate that nobody renews is told of 30 days ahead, once a day, and shown in the status")
    func warning() throws {
        let day: UInt64 = 86_400_000
        let node = try NodeHarness { configuration in
            let home = configuration.homes[0]
            let start = VirtualClock.wallAtStart
            let old = TestAuthority(seed: 201).certify(home.hoa, home.key.publicKey, notBefore: start - 340 * day, notAfter: start + 25 * day)
            configuration.homes = [HomeIdentity(hoa: home.hoa, key: home.key, certificate: old)]
        }
        node.links([H.first])
        node.foundOwn()
        // Its IMS may yet renew it.
        #expect(!node.logs.contains { $0.contains("not renewed") }, "\(node.logs)")
        try node.answerUpdate()
        func warnings() -> Int { node.logs.filter { $0.contains("days and was not renewed") }.count }
        #expect(warnings() == 1, "\(node.logs)")
        #expect(node.core.status(now: node.now).registrations.first?.certificateEndsSoon == true)
        node.advance(.seconds(301))
        try node.answerUpdate()
        #expect(warnings() == 1)
        let fine = try registered()
        try fine.answerUpdate()
        #expect(fine.core.status(now: fine.now).registrations.first?.certificateEndsSoon == false)
    }

    @Test("A certificate that ends soon and that the first answer renews is not told of as one that nobody renews")
    func renewedInTime() throws {
        let day: UInt64 = 86_400_000
        let (start, authority) = (VirtualClock.wallAtStart, TestAuthority(seed: 201))
        let node = try NodeHarness { configuration in
            let home = configuration.homes[0]
            let old = authority.certify(home.hoa, home.key.publicKey, notBefore: start - 340 * day, notAfter: start + 25 * day)
            configuration.homes = [HomeIdentity(hoa: home.hoa, key: home.key, certificate: old)]
        }
        node.links([H.first])
        node.foundOwn()
        let key = node.own.key.publicKey
        try node.answerUpdate(certificate: authority.certify(node.own.hoa, key, notBefore: start, notAfter: start + 365 * day))
        #expect(node.logs.contains { $0.contains("the IMS renewed the certificate") }, "\(node.logs)")
        #expect(!node.logs.contains { $0.contains("not renewed") }, "\(node.logs)")
    }
}
