import FoundationEssentials

/// How requests and answers stand on a line, and how `--json` prints them.
public enum ControlJSON {
    /// On one line, keys sorted.
    public static func encode(_ value: some Encodable) throws(ControlError) -> [UInt8] {
        try encode(value, [.sortedKeys, .withoutEscapingSlashes])
    }

    /// For people: indented, keys sorted, no line end behind it.
    public static func encodeIndented(_ value: some Encodable) throws(ControlError) -> String {
        String(decoding: try encode(value, [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]), as: UTF8.self)
    }

    private static func encode(_ value: some Encodable, _ formatting: JSONEncoder.OutputFormatting) throws(ControlError) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = formatting
        do {
            return Array(try encoder.encode(value))
        } catch {
            throw ControlError("\(type(of: value)) can't be written as JSON: \(error)")
        }
    }

    /// - Throws: which key is missing or of another kind.
    public static func decode<Value: Decodable>(_ type: Value.Type, from octets: some Collection<UInt8>) throws(ControlError) -> Value {
        let depth = JSONValue.depth(octets)
        guard depth <= JSONValue.depthMax else { throw ControlError("JSON nested deeper than \(JSONValue.depthMax)") }
        do {
            return try JSONDecoder().decode(type, from: Data(octets))
        } catch let error as DecodingError {
            throw ControlError(reason(error))
        } catch {
            throw ControlError("not valid JSON: \(error)")
        }
    }

    private static func reason(_ error: DecodingError) -> String {
        func place(_ context: DecodingError.Context, _ key: (any CodingKey)? = nil) -> String {
            let path = (context.codingPath + [key].compactMap { $0 }).map { key in key.intValue.map { "[\($0)]" } ?? ".\(key.stringValue)" }.joined()
            return path.hasPrefix(".") ? String(path.dropFirst()) : path
        }
        switch error {
        case .keyNotFound(let key, let context): return "\"\(place(context, key))\" is missing"
        case .typeMismatch(let type, let context), .valueNotFound(let type, let context): return "\"\(place(context))\" is no \(type)"
        case .dataCorrupted(let context):
            return context.codingPath.isEmpty ? "not valid JSON" : "\"\(place(context))\" is not valid: \(context.debugDescription)"
        @unknown default: return "not valid JSON"
        }
    }
}
