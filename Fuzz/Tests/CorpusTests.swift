import Foundation
import MATFuzzing
import SeededRandom
import Testing

/// What fuzzing found and began with, in `Corpus/<target>/`, through the same functions that `deploy/fuzz` calls.
@Suite("Fuzz corpora")
struct CorpusTests {
    private static let directory = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().appending(path: "Corpus")
    /// Inputs made of each target's corpus.
    private static let mutationsCount = 1500

    private static func corpus(_ target: FuzzTarget) throws -> [(name: String, octets: [UInt8])] {
        let directory = directory.appending(path: target.name)
        let names = try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted()
        return try names.map { ($0, Array(try Data(contentsOf: directory.appending(path: $0)))) }
    }

    @Test("Every input that was ever found is read without harm", arguments: FuzzTarget.all)
    func corpora(target: FuzzTarget) throws {
        let corpus = try Self.corpus(target)
        #expect(!corpus.isEmpty, "\(target) has no inputs to begin with")
        for (name, octets) in corpus {
            do {
                try target.run(octets)
            } catch {
                Issue.record("\(target)/\(name): \(error)")
            }
        }
    }

    @Test("So is what comes of changing them", arguments: FuzzTarget.all)
    func mutations(target: FuzzTarget) throws {
        let corpus = try Self.corpus(target).map(\.octets)
        var random = SeededGenerator(seed: 20_261_121)
        var mutator = Mutator(seed: 4)
        for number in 0..<Self.mutationsCount {
            let octets = mutator.mutate(corpus.randomElement(using: &random) ?? [], with: corpus.randomElement(using: &random) ?? [])
            do {
                try target.run(octets)
            } catch {
                let hex = octets.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
                Issue.record("\(target), input \(number) (\(hex)): \(error)")
                return
            }
        }
    }

    @Test("Cut off anywhere, an input is read without harm", arguments: FuzzTarget.all)
    func truncations(target: FuzzTarget) throws {
        for (name, octets) in try Self.corpus(target).prefix(24) {
            for count in stride(from: 0, to: octets.count, by: max(1, octets.count / 48)) {
                do {
                    try target.run(Array(octets.prefix(count)))
                } catch {
                    Issue.record("\(target)/\(name), \(count) octets of it: \(error)")
                }
            }
        }
    }
}
