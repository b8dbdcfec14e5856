import BenchSupport
import CLinux
import Foundation
import Glibc
import IMS
import IMSCore
import MATSignal
import MappingMemory

/// What the machine allows, measured where updates are: signatures that one core checks, and what the disk makes durable.
struct Limits {
    let host: IMSHost
    let seconds: Double

    /// Ed25519 checks of mapping records a second, on the servers' core.
    func verificationsPerSecond() throws -> Double {
        let core = host.serverCore
        let seconds = seconds
        return try onThread {
            guard mat_pin_thread(1 << UInt(core)) == 0 else { throw BenchError("pin to core \(core): errno \(errno)") }
            yieldToNobody()
            guard let key = SigningKey(seed: (0..<32).map { UInt8($0) }), let hoa = HomeAddress("10.0.0.1"), let moa = MobileAddress("10.128.0.1")
            else { throw BenchError("no key") }
            let record = MappingRecord(hoa: hoa, sequence: 1, lifetime: 600, issued: 1, locators: [Locator(moa)])
            guard let signed = record.signed(with: key) else { throw BenchError("no signature") }
            let end = Ticks.wall() &+ UInt64(seconds * 1e9)
            let start = Ticks.wall()
            var count = 0
            while Ticks.wall() < end {
                for _ in 0..<64 { try signed.verifySignature(by: key.publicKey) }
                count += 64
            }
            return Double(count) * 1e9 / Double(Ticks.wall() - start)
        }
    }

    /// Ed25519 signatures a second, as certificates take one each, on the servers' core.
    func signaturesPerSecond() throws -> Double {
        let core = host.serverCore
        let seconds = seconds
        return try onThread {
            guard mat_pin_thread(1 << UInt(core)) == 0 else { throw BenchError("pin to core \(core): errno \(errno)") }
            yieldToNobody()
            guard let key = SigningKey(seed: (0..<32).map { UInt8($0) }), let hoa = HomeAddress("10.0.0.1") else { throw BenchError("no key") }
            let end = Ticks.wall() &+ UInt64(seconds * 1e9)
            let start = Ticks.wall()
            var count = 0
            while Ticks.wall() < end {
                for _ in 0..<64 {
                    guard Certificate(issuing: hoa, nodeKey: key.publicKey, notBefore: UInt64(count), notAfter: .max, with: key) != nil else {
                        throw BenchError("no signature")
                    }
                    count += 1
                }
            }
            return Double(count) * 1e9 / Double(Ticks.wall() - start)
        }
    }

    /// Leases a second, each with its certificate, and the token's count once in so many: as joins are written.
    func leasesPerSecond(each: Int) throws -> Double {
        let path = "\(host.directory)/limit.db"
        defer { for suffix in ["", "-wal", "-shm"] { unlink(path + suffix) } }
        let store = try MappingStore(path: path)
        defer { store.close() }
        guard let issuer = SigningKey(seed: (0..<32).map { UInt8($0) }), let hoa = HomeAddress("10.0.0.1"),
            let certificate = Certificate(issuing: hoa, nodeKey: issuer.publicKey, notBefore: 1, notAfter: 2, with: issuer),
            let secret = TokenSecret((0..<32).map { UInt8($0) })
        else { throw BenchError("no certificate") }
        var token = HeldToken(id: TokenID(rawValue: 1), secret: secret, gives: [], createdAt: 1)
        var spent: UInt64 = 0
        var count = 0
        while Double(spent) < seconds * 1e9 {
            token.version += 1
            var rows = [token.row]
            var certificates: [Certificate] = []
            for number in count..<count + each {
                let prefix = IPPrefix(IPAddress(ipv4: 0x0A00_0000 | UInt32(number &* 40_503 & 0x7F_FFFF)))
                var lease = Lease(prefix, key: issuer.publicKey, .token(token.id), givenAt: 1)
                lease.version = 1
                rows.append(lease.row)
                certificates.append(try Certificate(octets: prefix.address.octets + certificate.octets.dropFirst(16)))
            }
            let start = Ticks.wall()
            try store.fill([StoreChange(rows: rows, certificates: certificates)])
            spent += Ticks.wall() - start
            count += each
        }
        return Double(count) * 1e9 / Double(spent)
    }

    /// fdatasync calls a second, each after an append of 4 KiB.
    func syncsPerSecond() throws -> Double {
        let file = "\(host.directory)/sync"
        let descriptor = mat_open(file, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        guard descriptor >= 0 else { throw BenchError("\(file): \(String(cString: strerror(errno)))") }
        defer {
            close(descriptor)
            unlink(file)
        }
        let octets = [UInt8](repeating: 0x5A, count: 4096)
        let start = Ticks.wall()
        let end = start &+ UInt64(seconds * 1e9)
        var count = 0
        while Ticks.wall() < end {
            guard write(descriptor, octets, octets.count) == octets.count, fdatasync(descriptor) == 0 else {
                throw BenchError("fdatasync: \(String(cString: strerror(errno)))")
            }
            count += 1
        }
        return Double(count) * 1e9 / Double(Ticks.wall() - start)
    }

    /// Mappings a second that the product's store makes durable in transactions of so many, and nothing else to do.
    func storedPerSecond(each: Int) throws -> Double {
        let path = "\(host.directory)/limit.db"
        defer { for suffix in ["", "-wal", "-shm"] { unlink(path + suffix) } }
        let store = try MappingStore(path: path)
        defer { store.close() }
        guard let issuer = SigningKey(seed: (0..<32).map { UInt8($0) }), let hoa = HomeAddress("10.0.0.1"), let moa = MobileAddress("10.128.0.1"),
            let certificate = Certificate(issuing: hoa, nodeKey: issuer.publicKey, notBefore: 1, notAfter: 2, with: issuer)
        else { throw BenchError("no certificate") }
        var sequence: UInt64 = 0
        func change(_ number: Int) -> StoreChange {
            let own = HomeAddress(IPAddress(ipv4: 0x0A00_0000 | UInt32(number &* 40_503 & 0xF_FFFF)))
            sequence += 1
            let record = MappingRecord(hoa: own, sequence: sequence, lifetime: 600, issued: 1, locators: [Locator(moa)])
            return StoreChange(
                mapping: StoredMapping(
                    certified: CertifiedMapping(mapping: SignedMapping(record: record, signature: certificate.signature), certificate: certificate),
                    source: Endpoint(moa.address, port: 6289), local: moa.address, provenAt: 1))
        }
        var spent: UInt64 = 0
        var count = 0
        while Double(spent) < seconds * 1e9 {
            let changes = (count..<count + each).map(change)
            let start = Ticks.wall()
            try store.fill(changes)
            spent += Ticks.wall() - start
            count += each
        }
        return Double(count) * 1e9 / Double(spent)
    }
}
