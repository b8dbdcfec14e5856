import BenchSupport
import Foundation
import MATSignal

/// Nodes that exist only as numbers: all of a node follows from the population's description and its number, so that a file of a few
/// lines stands for ten million of them, and one run knows what another put into the server.
///
/// ```
/// node i   of IPv4      HoA  hoa4 + i         MoAs moa4 + i, then the next block of addresses for each move, as far as there is room
///          of IPv6      HoA  hoa6 + i         MoAs likewise, each in a /64 of its own: servers take a /64 for one source
/// ```
/// With both families the first half of the nodes is of IPv4.
struct Population: Codable, Sendable {
    enum Family: String, Codable, CaseIterable, Sendable { case v4, v6, both }

    /// What all keys follow from.
    var seed: UInt64
    var count: Int
    var family: Family
    /// The nodes from 0 on that have keys and signatures of their own. The others borrow node 0's, which is quick, and does where
    /// nobody verifies: an IMS does not verify what it reads from its own store. They can be asked for, but not update.
    var signedCount: Int
    var hoa4 = "10.0.0.0/9"
    var hoa6 = "2001:db8::/34"
    var moa4 = "10.128.0.0/9"
    var moa6 = "2001:db8:8000::/33"
    /// Unix time in ms of the certificates' beginning and the records' issue.
    var madeAt: UInt64
    /// Seconds.
    var lifetime: UInt32 = MappingRecord.lifetimeMax

    static let countMax = 16_000_000
    /// Blocks of MoAs at most: a node that moves often comes back to the first.
    static let blocksMax = 4

    init(seed: UInt64, count: Int, family: Family, signedCount: Int, madeAt: UInt64) throws {
        self.seed = seed
        self.count = count
        self.family = family
        self.signedCount = min(max(1, signedCount), count)
        self.madeAt = madeAt
        try check()
    }

    init(file: String) throws {
        do {
            self = try JSONDecoder().decode(Population.self, from: try Data(contentsOf: URL(fileURLWithPath: file)))
        } catch {
            throw BenchError("\(file) is no population (`mat-load population` writes one): \(error)")
        }
        try check()
    }

    func write(to file: String) throws {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        try encoder.encode(self).write(to: URL(fileURLWithPath: file))
    }

    private func check() throws {
        guard (1...Self.countMax).contains(count) else { throw BenchError("a population has 1 to \(Self.countMax) nodes") }
        for text in [hoa4, hoa6, moa4, moa6] where IPPrefix(text) == nil { throw BenchError("\(text) is no prefix") }
        guard count4 < 1 << 23, count - count4 < 1 << 30 else { throw BenchError("\(count) nodes do not fit the prefixes") }
    }

    /// Nodes of IPv4; they come first.
    var count4: Int { family == .v4 ? count : family == .v6 ? 0 : (count + 1) / 2 }
    var prefixes: [IPPrefix] { (count4 > 0 ? [hoa4] : []).compactMap { IPPrefix($0) } + (count4 < count ? [hoa6] : []).compactMap { IPPrefix($0) } }
}

/// The arithmetic of a population, ready for millions of calls.
struct Nodes: Sendable {
    let population: Population
    let count: Int
    private let count4: Int
    private let hoa4, hoa6, moa4, moa6: IPAddress
    /// How many blocks of MoAs there are in each family's prefix.
    private let blocks4, blocks6: Int
    private let hash: SipHash

    init(_ population: Population) throws {
        self.population = population
        count = population.count
        count4 = population.count4
        func base(_ text: String) throws -> IPPrefix {
            guard let prefix = IPPrefix(text) else { throw BenchError("\(text) is no prefix") }
            return prefix
        }
        let (h4, h6, m4, m6) = (
            try base(population.hoa4), try base(population.hoa6), try base(population.moa4), try base(population.moa6)
        )
        (hoa4, hoa6, moa4, moa6) = (h4.address, h6.address, m4.address, m6.address)
        blocks4 = min(Population.blocksMax, max(1, (1 << Int(128 - m4.length)) / max(1, count4 + 1)))
        blocks6 = min(Population.blocksMax, max(1, (1 << Int(64 - min(64, m6.length))) / max(1, count - count4 + 1)))
        guard let hash = SipHash(key: Self.octets(population.seed) + Array("mat-load".utf8)) else { throw BenchError("no hash") }
        self.hash = hash
    }

    func isIPv4(_ node: Int) -> Bool { node < count4 }

    @inline(__always)
    func hoa(_ node: Int) -> IPAddress {
        node < count4
            ? IPAddress(high: hoa4.high, low: hoa4.low &+ UInt64(node + 1))
            : IPAddress(high: hoa6.high, low: hoa6.low &+ UInt64(node - count4 + 1))
    }

    /// Where the node is after so many moves.
    func moa(_ node: Int, _ moves: Int) -> IPAddress {
        if node < count4 {
            return IPAddress(high: moa4.high, low: moa4.low &+ UInt64(block(node, moves) * count4 + node + 1))
        }
        let subnet = block(node, moves) * (count - count4) + node - count4
        return IPAddress(high: moa6.high &+ UInt64(subnet), low: 1)
    }

    /// Which block of MoAs the node is in after so many moves.
    func block(_ node: Int, _ moves: Int) -> Int { moves % (node < count4 ? blocks4 : blocks6) }

    /// The client's half of the cookie that the node has at that address.
    func clientCookie(_ node: Int, _ moves: Int) -> UInt64 { UInt64(block(node, moves)) << 56 | 0x6D_6174 << 32 | UInt64(node) }

    /// The node of an HoA, `nil` if it is none of these.
    func node(of hoa: IPAddress) -> Int? {
        if hoa.isIPv4 {
            let number = hoa.low &- hoa4.low
            return number >= 1 && number <= UInt64(count4) ? Int(number) - 1 : nil
        }
        let number = hoa.low &- hoa6.low
        return hoa.high == hoa6.high && number >= 1 && number <= UInt64(count - count4) ? Int(number) - 1 + count4 : nil
    }

    /// The node that is or was at a MoA, `nil` if it is none of these.
    func node(at moa: IPAddress) -> Int? {
        if moa.isIPv4 {
            let number = moa.low &- moa4.low
            return count4 > 0 && number >= 1 && number <= UInt64(count4 * blocks4) ? (Int(number) - 1) % count4 : nil
        }
        let number = moa.high &- moa6.high
        return count > count4 && number < UInt64((count - count4) * blocks6) ? Int(number) % (count - count4) + count4 : nil
    }

    // MARK: Keys and records

    /// A key for benchmarks: whoever knows the seed knows it.
    func key(_ node: Int) throws -> SigningKey {
        var octets: [UInt8] = []
        for part in UInt64(0)..<4 { octets += Self.octets(hash.hash(Self.octets(UInt64(node)) + Self.octets(part))) }
        guard let key = SigningKey(seed: octets) else { throw BenchError("no key for node \(node)") }
        return key
    }

    func certificate(_ node: Int, of key: PublicKey, by issuer: SigningKey) throws -> Certificate {
        guard
            let certificate = Certificate(
                issuing: HomeAddress(hoa(node)), nodeKey: key, notBefore: population.madeAt,
                notAfter: population.madeAt + 365 * 86_400_000, with: issuer)
        else { throw BenchError("no certificate for node \(node)") }
        return certificate
    }

    func record(_ node: Int, moves: Int, sequence: UInt64, issued: UInt64) -> MappingRecord {
        MappingRecord(
            hoa: HomeAddress(hoa(node)), sequence: sequence, lifetime: population.lifetime, issued: issued,
            locators: [Locator(MobileAddress(moa(node, moves)))])
    }

    static func octets(_ number: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: number >> UInt64(56 - 8 * $0)) } }
}
