import Foundation
import Testing

/// The published vectors of protocol.md, as octets by name.
struct Vectors: Sendable {
    static let shared = Vectors()

    let octets: [String: [UInt8]]
    let keys: [String: [UInt8]]

    private struct File: Decodable {
        let keys: [String: String]
        let vectors: [String: String]
    }

    private init() {
        do {
            let url = try #require(Bundle.module.url(forResource: "protocol-vectors", withExtension: "json", subdirectory: "Vectors"))
            let file = try JSONDecoder().decode(File.self, from: Data(contentsOf: url))
            octets = file.vectors.mapValues(hex)
            keys = file.keys.mapValues(hex)
        } catch {
            Issue.record("the vectors can't be read: \(error)")
            octets = [:]
            keys = [:]
        }
    }

    func named(_ name: String) throws -> [UInt8] {
        try #require(octets[name], "no vector \(name)")
    }

    /// Run here by name rather than as messages, or by MATDNSTests.
    static let runByName: Set<String> = [
        "prefix.mapping.value", "path4.mapping.value", "path6.mapping.value", "path4.pathSignature.octets.bind.value",
        "path4.pathSignature.octets.answer.value", "path6.pathSignature.octets.bind.value", "path6.pathSignature.octets.answer.value",
        "dns.ims.rdata", "dns.ims.rdata.withAddresses", "dns.ims.rdata.withRelay", "path4.join.octets.value", "path6.join.octets.value",
        "join.token.text",
    ]

    /// Names of the vectors that are messages, both families.
    var messageNames: [String] {
        octets.keys.filter { name in
            guard !Self.runByName.contains(name) else { return false }
            return ["v4.", "v6.", "draft.", "path4.", "path6."].contains { name.hasPrefix($0) }
        }.sorted()
    }
}

func hex(_ text: String) -> [UInt8] {
    var result: [UInt8] = []
    var high: UInt8?
    for character in text {
        guard let digit = character.hexDigitValue else { continue }
        if let first = high {
            result.append(first << 4 | UInt8(digit))
            high = nil
        } else {
            high = UInt8(digit)
        }
    }
    return result
}
