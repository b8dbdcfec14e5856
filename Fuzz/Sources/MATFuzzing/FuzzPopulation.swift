import IMSCore
import MATSignal
import SeededRandom

/// The people of protocol.md's test vectors, so that the vectors' cookies, certificates and signatures are good here, and what is
/// mutated from them comes far.
struct FuzzPopulation: Sendable {
    static let start: UInt64 = 1_790_000_000_000
    static let local = IPAddress(ipv4: 0xCB00_7101)

    let nodeKey: SigningKey
    let imsKey: SigningKey
    let cookieSecret = [UInt8](0..<16)
    let cookies: CookieAuthority
    let certificate: Certificate

    init?() {
        let home = IPAddress(ipv4: 0xC000_0201)
        guard let nodeKey = SigningKey(seed: [UInt8](0..<32)), let imsKey = SigningKey(seed: [UInt8](0x20..<0x40)),
            let cookies = CookieAuthority(secret: [UInt8](0..<16)),
            let certificate = Certificate(
                issuing: HomeAddress(home), nodeKey: nodeKey.publicKey, notBefore: Self.start - 86_400_000,
                notAfter: Self.start + 86_400_000, with: imsKey)
        else { return nil }
        self.nodeKey = nodeKey
        self.imsKey = imsKey
        self.cookies = cookies
        self.certificate = certificate
    }

    /// 192.0.2.1 at 198.51.100.7, and its server.
    func makeServer() -> FuzzServer? {
        let served = ["192.0.2.0/24", "2001:db8:1::/48", "2001:db8:100::/40"].compactMap { IPPrefix($0) }.map {
            ServedPrefix(prefix: $0, mobilePrefixes: IPPrefix("2001:db8:aa00::/40").map { [$0] } ?? [])
        }
        var limits = IMSLimits()
        limits.ratesMax = 64
        limits.rememberedMax = 16
        limits.subscriptionsMax = 64
        limits.pushesMax = 32
        limits.notifiesPendingMax = 16
        limits.mappingsMax = 32
        let configuration = IMSCoreConfiguration(
            served: served, signingKey: imsKey, limits: limits, draftSources: IPPrefix("198.51.100.128/25").map { [$0] } ?? [])
        guard
            let core = IMSCore(
                configuration, cookieSecrets: [cookieSecret], clientSecret: [UInt8](repeating: 8, count: 16), random: SeededGenerator(seed: 1))
        else { return nil }
        return FuzzServer(core: core, limits: limits, population: self)
    }

    /// A source for each number: nodes at their port, an IMS, somebody at another port, of both families.
    static func source(_ number: UInt8) -> Endpoint {
        let hosts: [IPAddress] = [
            IPAddress(ipv4: 0xC633_6407), IPAddress(ipv4: 0xC633_6409), IPAddress(ipv4: 0xC633_6480), IPAddress(ipv4: 0xCB00_7109),
            IPAddress(high: 0x2001_0db8_00aa_0000, low: 7), IPAddress(high: 0x2001_0db8_00bb_0000, low: 9),
        ]
        let ports: [UInt16] = [SignalPort.node, SignalPort.ims, 40_000, 53]
        return Endpoint(hosts[Int(number & 0x0F) % hosts.count], port: ports[Int(number >> 4) % ports.count])
    }
}

extension FuzzTarget {
    static let population: FuzzPopulation = {
        guard let made = FuzzPopulation() else { preconditionFailure("the crypto library makes no keys of constants") }
        return made
    }()
    static var anyCertificate: Certificate { population.certificate }
    static var anySignature: Signature { population.certificate.signature }
}
