import FoundationEssentials

/// A JSON value, for the control socket and for `--json` output.
public enum JSONValue: Hashable, Sendable {
    case null
    case bool(Bool)
    case int(Int64)
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    /// How deep arrays and objects may stand in each other. Nothing of ours comes near it; the time that Foundation's decoder takes
    /// grows with the square of the depth and more.
    public static let depthMax = 32

    /// - Throws: where the text is no JSON, or that it is nested too deep.
    public static func parse(_ bytes: some Collection<UInt8>) throws(ControlError) -> JSONValue {
        try ControlJSON.decode(JSONValue.self, from: bytes)
    }

    /// Brackets that are open at the same time, those in strings apart.
    static func depth(_ bytes: some Collection<UInt8>) -> Int {
        var (depth, deepest) = (0, 0)
        var isInString = false
        var isEscaped = false
        for octet in bytes {
            if isEscaped {
                isEscaped = false
                continue
            }
            switch octet {
            case UInt8(ascii: "\\"): isEscaped = isInString
            case UInt8(ascii: "\""): isInString.toggle()
            case UInt8(ascii: "["), UInt8(ascii: "{"):
                if !isInString {
                    depth += 1
                    deepest = max(deepest, depth)
                }
            case UInt8(ascii: "]"), UInt8(ascii: "}"): if !isInString { depth -= 1 }
            default: break
            }
        }
        return deepest
    }

    /// The value on one line, keys sorted.
    public func write() -> [UInt8] { encoded([.sortedKeys, .withoutEscapingSlashes]) }

    private func encoded(_ formatting: JSONEncoder.OutputFormatting) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = formatting
        // Only a number that JSON can't express fails, and those are made null in `encode`.
        return (try? encoder.encode(self)).map { Array($0) } ?? Array("null".utf8)
    }
}

// MARK: - Members

extension JSONValue {
    public subscript(_ key: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members[key]
    }

    public var string: String? {
        guard case .string(let text) = self else { return nil }
        return text
    }

    public var int: Int64? {
        guard case .int(let number) = self else { return nil }
        return number
    }

    public var double: Double? {
        switch self {
        case .double(let number): number
        case .int(let number): Double(number)
        default: nil
        }
    }

    public var bool: Bool? {
        guard case .bool(let flag) = self else { return nil }
        return flag
    }

    public var array: [JSONValue]? {
        guard case .array(let elements) = self else { return nil }
        return elements
    }

    public var object: [String: JSONValue]? {
        guard case .object(let members) = self else { return nil }
        return members
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral,
    ExpressibleByBooleanLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral, ExpressibleByNilLiteral, ExpressibleByStringInterpolation
{
    public init(stringLiteral value: String) { self = .string(value) }
    public init(integerLiteral value: Int64) { self = .int(value) }
    public init(floatLiteral value: Double) { self = .double(value) }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(nilLiteral: ()) { self = .null }
    public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    /// A key given twice keeps its last value.
    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(Dictionary(elements) { _, last in last })
    }

    /// Whatever has a text: addresses, prefixes, endpoints.
    public static func text(_ value: some CustomStringConvertible) -> JSONValue { .string(value.description) }

    /// A number of any width; what 64 signed bits can't hold is held to their limit.
    public static func number(_ value: some BinaryInteger) -> JSONValue { .int(Int64(clamping: value)) }
}

extension JSONValue: Codable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() { self = .null; return }
        if let flag = try? container.decode(Bool.self) { self = .bool(flag); return }
        if let number = try? container.decode(Int64.self) { self = .int(number); return }
        if let number = try? container.decode(Double.self) { self = .double(number); return }
        if let text = try? container.decode(String.self) { self = .string(text); return }
        if let elements = try? container.decode([JSONValue].self) { self = .array(elements); return }
        self = .object(try container.decode([String: JSONValue].self))
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .bool(let flag): try container.encode(flag)
        case .int(let number): try container.encode(number)
        case .double(let number): if number.isFinite { try container.encode(number) } else { try container.encodeNil() }
        case .string(let text): try container.encode(text)
        case .array(let elements): try container.encode(elements)
        case .object(let members): try container.encode(members)
        }
    }
}
