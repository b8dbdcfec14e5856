import ArgumentParser
import BenchSupport
import Foundation
import IMS
import IMSCore
import MATSignal
import MappingMemory

struct PopulationCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "population", abstract: "Makes nodes, and a server's store that has them.",
        discussion: """
            FILE gets what the other commands need to be those nodes: the nodes follow from a seed. With --store their mappings are written \
            into imsd's SQLite file, while no imsd runs on it. Without --signed each has its own key and signatures; with it only so many \
            have, and the rest borrow the first one's, which takes a tenth of the time: an IMS does not verify its own store again.
            """)

    @Argument(help: "The file to write, for --population of other commands.") var file: String
    @OptionGroup var issuer: IssuerOptions
    @Option(help: "Nodes.") var count = 10_000
    @Option(help: "Their HoAs and MoAs: v4, v6 or both.") var family = Population.Family.both.rawValue
    @Option(help: "All keys follow from this.") var seed: UInt64 = 1
    @Option(help: "So many nodes have signatures of their own; all by default.") var signed: Int?
    @Option(help: ArgumentHelp("Write the mappings into this store of imsd.", valueName: "file")) var store: String?
    @Option(help: ArgumentHelp("Write a DNS zone \"bench.\" with as many names, for comparison.", valueName: "file")) var zone: String?
    @Option(help: "The server's address that the nodes registered at.") var server = "127.0.0.1"

    /// Mappings that are made and written at a time.
    private static let portionMax = 65_536

    func run() throws {
        guard let family = Population.Family(rawValue: family) else { throw ValidationError("--family wants v4, v6 or both") }
        guard let local = IPAddress(server) else { throw ValidationError("--server wants an IP address") }
        let start = Ticks.wall()
        let population = try Population(
            seed: seed, count: count, family: family, signedCount: signed ?? count, madeAt: wallMilliseconds())
        let nodes = try Nodes(population)
        try population.write(to: file)
        if let zone { try DNSName.zone(of: count).write(toFile: zone, atomically: false, encoding: .utf8) }
        guard let store else { return }
        let issuer = try issuer.issuer()
        let maker = try MappingMaker(nodes, issuer: issuer, local: local)
        let target = try MappingStore(path: store)
        for first in stride(from: 0, to: count, by: Self.portionMax) {
            let portion = try inParallel(first..<min(first + Self.portionMax, count)) { StoreChange(mapping: try maker.make($0)) }
            try target.fill(portion)
        }
        target.close()
        let seconds = Double(Ticks.wall() - start) / 1e9
        FileHandle.standardError.write(Data("\(count) mappings in \(number(seconds, 1)) s\n".utf8))
    }
}

/// What a store holds of a node.
struct MappingMaker: Sendable {
    private let nodes: Nodes
    private let issuer: SigningKey
    private let local: IPAddress
    /// Node 0's certificate value and signature, lent to those without.
    private let lentCertificate: [UInt8]
    private let lentSignature: Signature

    init(_ nodes: Nodes, issuer: SigningKey, local: IPAddress) throws {
        self.nodes = nodes
        self.issuer = issuer
        self.local = local
        let key = try nodes.key(0)
        lentCertificate = try nodes.certificate(0, of: key.publicKey, by: issuer).octets
        let record = nodes.record(0, moves: 0, sequence: nodes.population.madeAt, issued: nodes.population.madeAt)
        guard let signed = record.signed(with: key) else { throw BenchError("a record could not be signed") }
        lentSignature = signed.signature
    }

    func make(_ node: Int) throws -> StoredMapping {
        let population = nodes.population
        let record = nodes.record(node, moves: 0, sequence: population.madeAt, issued: population.madeAt)
        let certificate: Certificate
        let mapping: SignedMapping
        if node < population.signedCount {
            let key = try nodes.key(node)
            certificate = try nodes.certificate(node, of: key.publicKey, by: issuer)
            guard let signed = record.signed(with: key) else { throw BenchError("a record could not be signed") }
            mapping = signed
        } else {
            // The HoA comes first in a certificate.
            certificate = try Certificate(octets: nodes.hoa(node).octets + lentCertificate.dropFirst(16))
            mapping = SignedMapping(record: record, signature: lentSignature)
        }
        return StoredMapping(
            certified: CertifiedMapping(mapping: mapping, certificate: certificate),
            source: Endpoint(nodes.moa(node, 0), port: SignalPort.node), local: local, provenAt: population.madeAt)
    }
}
