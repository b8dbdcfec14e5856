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

    /// - Throws: where the text is no JSON, or which key is missing or of another kind.
    public static func decode<Value: Decodable>(_ type: Value.Type, from octets: some Collection<UInt8>) throws(ControlError) -> Value {
        let depth = JSONValue.depth(octets)
        guard depth <= JSONValue.depthMax else { throw ControlError("JSON nested \(depth) deep, where at most \(JSONValue.depthMax) are taken") }
        do {
            return try JSONDecoder().decode(type, from: Data(octets))
        } catch {
            throw ControlError(reason(error, octets))
        }
    }

    private static func reason(_ error: any Error, _ octets: some Collection<UInt8>) -> String {
        func place(_ context: DecodingError.Context, _ key: (any CodingKey)? = nil) -> String {
            let path = (context.codingPath + [key].compactMap { $0 }).map { key in key.intValue.map { "[\($0)]" } ?? ".\(key.stringValue)" }.joined()
            return path.isEmpty ? "it" : "\"\(path.hasPrefix(".") ? String(path.dropFirst()) : path)\""
        }
        // Looked for first: Foundation's decoder reads strings and numbers when they are asked for, and then says that one is of another kind.
        if let fault = JSONFault.find(in: octets) { return "not valid JSON: \(fault)" }
        switch error as? DecodingError {
        case .keyNotFound(let key, let context)?: return "\(place(context, key)) is missing"
        case .typeMismatch(let type, let context)?: return "\(place(context)) is no \(name(of: type))"
        case .valueNotFound(let type, let context)?: return "\(place(context)) is null, and no \(name(of: type))"
        case .dataCorrupted(let context)?: return "\(place(context)) is not valid: \(context.debugDescription)"
        default: return "\(error)"
        }
    }

    /// What JSON calls it.
    private static func name(of type: any Any.Type) -> String {
        switch type {
        case is String.Type: "string"
        case is Bool.Type: "boolean"
        case is any BinaryInteger.Type: "whole number from \(range(of: type))"
        case is any BinaryFloatingPoint.Type: "number"
        default: String(describing: type).hasPrefix("Dictionary") ? "object" : String(describing: type).hasPrefix("Array") ? "array" : "\(type)"
        }
    }

    private static func range(of type: any Any.Type) -> String {
        func text<Number: FixedWidthInteger>(_ type: Number.Type) -> String { "\(Number.min) to \(Number.max)" }
        return (type as? any FixedWidthInteger.Type).map { text($0) } ?? "\(type)"
    }
}
