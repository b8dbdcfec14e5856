import MATSignal
import MappingMemory

/// Made-up nodes: node `n` has the n-th address of 10.0.0.0/8 as its HoA and is at the n-th of 11.0.0.0/8.
///
/// Signatures are made only where somebody checks them: the store and the core's own work take any.
struct Population {
    let issuer: SigningKey
    let nodeKey: SigningKey
    private let certificateTail: [UInt8]
    private let signature: Signature
    static let prefix = IPPrefix(covering: IPAddress(ipv4: 0x0A00_0000), length: 104)

    init?() {
        guard let issuer = SigningKey(seed: [UInt8](repeating: 7, count: 32)), let key = SigningKey(seed: [UInt8](repeating: 8, count: 32)),
            let signature = Signature([UInt8](repeating: 9, count: 64))
        else { return nil }
        self.issuer = issuer
        nodeKey = key
        self.signature = signature
        let id = (0..<8).map { UInt8(truncatingIfNeeded: issuer.publicKey.id >> (56 - UInt64($0) * 8)) }
        certificateTail = key.publicKey.octets + id + signature.octets
    }

    func hoa(_ number: Int) -> HomeAddress { HomeAddress(IPAddress(ipv4: 0x0A00_0000 + UInt32(truncatingIfNeeded: number))) }
    func moa(_ number: Int) -> MobileAddress { MobileAddress(IPAddress(ipv4: 0x0B00_0000 + UInt32(truncatingIfNeeded: number))) }

    func certificate(_ number: Int, now: UInt64) -> Certificate? {
        let hour: UInt64 = 3_600_000
        let times = [now - hour, now + 24 * hour].flatMap { time in (0..<8).map { UInt8(truncatingIfNeeded: time >> (56 - UInt64($0) * 8)) } }
        return try? Certificate(octets: hoa(number).address.octets + [128, 0, 0, 0] + times + certificateTail)
    }

    func mapping(_ number: Int, sequence: UInt64, now: UInt64) -> CertifiedMapping? {
        guard let certificate = certificate(number, now: now) else { return nil }
        let record = MappingRecord(hoa: hoa(number), sequence: sequence, lifetime: 600, issued: now, locators: [Locator(moa(number))])
        return CertifiedMapping(mapping: SignedMapping(record: record, signature: signature), certificate: certificate)
    }

    func stored(_ number: Int, sequence: UInt64, now: UInt64) -> StoredMapping? {
        guard let certified = mapping(number, sequence: sequence, now: now) else { return nil }
        return StoredMapping(
            certified: certified, source: Endpoint(moa(number).address, port: SignalPort.node), local: IPAddress(ipv4: 0xCB00_7101),
            provenAt: now)
    }
}
