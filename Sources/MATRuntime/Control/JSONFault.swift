/// Where a text stops being JSON (RFC 8259), and why: Foundation's decoder says only that it is none.
struct JSONFault: Hashable, Sendable, CustomStringConvertible {
    /// How many octets of the text are in order.
    let offset: Int
    /// What had to follow there.
    let expected: String
    /// What follows instead; `nil` at the end of the text.
    let found: UInt8?

    var description: String {
        guard let found else { return "it ends after octet \(offset), where \(expected) must follow" }
        let isPrintable = found > 0x20 && found < 0x7F
        let shown = isPrintable ? String(decoding: [found], as: UTF8.self) : "of value \(found)"
        return "octet \(offset + 1) is \(shown), where \(expected) must stand"
    }

    /// - Parameter octets: nested no deeper than `JSONValue.depthMax`.
    /// - Returns: `nil` if nothing is found.
    static func find(in octets: some Collection<UInt8>) -> JSONFault? {
        var text = JSONText(octets: Array(octets))
        do throws(JSONFault) {
            try text.readValue()
            guard text.next == nil else { throw text.fault("the end") }
            return nil
        } catch {
            return error
        }
    }
}

extension JSONFault: Error {}

/// Reads over a text by JSON's grammar and keeps nothing of it.
private struct JSONText {
    private static let digits = UInt8(ascii: "0")...UInt8(ascii: "9")

    let octets: [UInt8]
    private var offset = 0

    init(octets: [UInt8]) { self.octets = octets }

    private var current: UInt8? { offset < octets.count ? octets[offset] : nil }

    /// The next octet that is no white space.
    var next: UInt8? {
        mutating get {
            while let octet = current, [0x20, 0x09, 0x0A, 0x0D].contains(octet) { offset += 1 }
            return current
        }
    }

    func fault(_ expected: String) -> JSONFault { JSONFault(offset: offset, expected: expected, found: current) }

    mutating func readValue() throws(JSONFault) {
        switch next {
        case UInt8(ascii: "{"): try readObject()
        case UInt8(ascii: "["): try readArray()
        case UInt8(ascii: "\""): try readString()
        case UInt8(ascii: "t"): try read("true")
        case UInt8(ascii: "f"): try read("false")
        case UInt8(ascii: "n"): try read("null")
        case let octet? where octet == UInt8(ascii: "-") || Self.digits.contains(octet): try readNumber()
        default: throw fault("a value")
        }
    }

    private mutating func readObject() throws(JSONFault) {
        offset += 1
        if next == UInt8(ascii: "}") {
            offset += 1
            return
        }
        while true {
            guard next == UInt8(ascii: "\"") else { throw fault("a key in quotes") }
            try readString()
            guard next == UInt8(ascii: ":") else { throw fault("a colon") }
            offset += 1
            try readValue()
            guard try hasMore(before: UInt8(ascii: "}"), "a comma or }") else { return }
        }
    }

    private mutating func readArray() throws(JSONFault) {
        offset += 1
        if next == UInt8(ascii: "]") {
            offset += 1
            return
        }
        while true {
            try readValue()
            guard try hasMore(before: UInt8(ascii: "]"), "a comma or ]") else { return }
        }
    }

    private mutating func hasMore(before end: UInt8, _ expected: String) throws(JSONFault) -> Bool {
        let octet = next
        guard octet == UInt8(ascii: ",") || octet == end else { throw fault(expected) }
        offset += 1
        return octet != end
    }

    private mutating func readString() throws(JSONFault) {
        offset += 1
        while let octet = current, octet != UInt8(ascii: "\"") {
            guard octet >= 0x20 else { throw fault("the closing quote, or an escape for a control character,") }
            offset += 1
            guard octet == UInt8(ascii: "\\") else { continue }
            guard let escaped = current, Array("\"\\/bfnrtu".utf8).contains(escaped) else { throw fault(#"one of "\/bfnrtu"#) }
            offset += 1
            guard escaped == UInt8(ascii: "u") else { continue }
            for _ in 0..<4 {
                guard let digit = current, Character(UnicodeScalar(digit)).isHexDigit else { throw fault("a hexadecimal digit") }
                offset += 1
            }
        }
        guard current != nil else { throw fault("the closing quote") }
        offset += 1
    }

    private mutating func readNumber() throws(JSONFault) {
        if current == UInt8(ascii: "-") { offset += 1 }
        // No zero before other digits.
        if current == UInt8(ascii: "0") { offset += 1 } else { try readDigits() }
        if current == UInt8(ascii: ".") {
            offset += 1
            try readDigits()
        }
        guard current == UInt8(ascii: "e") || current == UInt8(ascii: "E") else { return }
        offset += 1
        if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { offset += 1 }
        try readDigits()
    }

    private mutating func readDigits() throws(JSONFault) {
        let start = offset
        while let octet = current, Self.digits.contains(octet) { offset += 1 }
        guard offset > start else { throw fault("a digit") }
    }

    private mutating func read(_ word: String) throws(JSONFault) {
        for octet in word.utf8 {
            guard current == octet else { throw fault(word) }
            offset += 1
        }
    }
}
