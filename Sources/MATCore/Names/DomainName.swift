/// An absolute domain name (RFC 1035 section 3.1), kept in its uncompressed wire form.
///
/// Names compare without regard to ASCII case, but keep the case they came with.
public struct DomainName: Sendable, CustomStringConvertible {
    /// Octets of the wire form, the root's length octet included.
    public static let octetsMax = 255
    /// Octets of one label.
    public static let labelOctetsMax = 63

    /// Length-prefixed labels and the root's zero.
    public let wire: [UInt8]

    public static let root = DomainName(validWire: [0])

    private init(validWire: [UInt8]) { wire = validWire }

    /// - Returns: `nil` if a label is empty or longer than 63 octets, or the name longer than 255.
    public init?(labels: some Sequence<[UInt8]>) {
        var wire = [UInt8]()
        for label in labels {
            guard !label.isEmpty, label.count <= Self.labelOctetsMax, wire.count + label.count + 2 <= Self.octetsMax else {
                return nil
            }
            wire.append(UInt8(label.count))
            wire += label
        }
        self.init(validWire: wire + [0])
    }

    public var labels: [[UInt8]] {
        var result = [[UInt8]]()
        var rest = wire[...]
        while let length = rest.first, length > 0 {
            result.append(Array(rest.dropFirst().prefix(Int(length))))
            rest = rest.dropFirst(Int(length) + 1)
        }
        return result
    }

    // MARK: Wire

    /// Takes an uncompressed name off the front of the octets.
    ///
    /// - Throws: if it runs past their end, is too long, or is compressed.
    public static func decode(_ octets: inout ArraySlice<UInt8>) throws(DNSError) -> DomainName {
        var rest = octets
        while let length = rest.popFirst() {
            guard length <= labelOctetsMax else { throw DNSError("a domain name is compressed or has a label over 63 octets") }
            let used = rest.startIndex - octets.startIndex
            guard used + Int(length) <= octetsMax else { throw DNSError("a domain name is longer than 255 octets") }
            if length == 0 {
                defer { octets = rest }
                return DomainName(validWire: Array(octets.prefix(used)))
            }
            guard rest.count >= Int(length) else { break }
            rest = rest.dropFirst(Int(length))
        }
        throw DNSError("a domain name is cut off")
    }

    // MARK: Text

    /// Parses a name in zone-file form: labels with dots between, `\.` and `\DDD` for octets that can't stand for
    /// themselves. The dot at the end may be left out; the name is absolute either way.
    public init?(_ text: String) {
        if text == "." { self = .root; return }
        var labels: [[UInt8]] = [[]]
        var rest = Array(text.utf8)[...]
        while let octet = rest.popFirst() {
            switch octet {
            case UInt8(ascii: "."):
                labels.append([])
            case UInt8(ascii: "\\"):
                guard let escaped = Self.parseEscape(&rest) else { return nil }
                labels[labels.count - 1].append(escaped)
            default:
                labels[labels.count - 1].append(octet)
            }
        }
        if labels.count > 1, labels.last?.isEmpty == true { labels.removeLast() }
        self.init(labels: labels)
    }

    private static func parseEscape(_ rest: inout ArraySlice<UInt8>) -> UInt8? {
        guard let first = rest.popFirst() else { return nil }
        let isDigit: (UInt8) -> Bool = { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
        guard isDigit(first) else { return first }
        guard let second = rest.popFirst(), let third = rest.popFirst(), isDigit(second), isDigit(third) else { return nil }
        return UInt8(String(decoding: [first, second, third], as: UTF8.self))
    }

    /// The name in zone-file form, with the dot at the end.
    public var description: String {
        if wire == [0] { return "." }
        var text = ""
        for label in labels {
            for octet in label {
                switch octet {
                case UInt8(ascii: "."), UInt8(ascii: "\\"), UInt8(ascii: "\""), UInt8(ascii: ";"), UInt8(ascii: "("),
                    UInt8(ascii: ")"),
                    UInt8(ascii: "@"), UInt8(ascii: "$"):
                    text += "\\\(Character(UnicodeScalar(octet)))"
                case 0x21...0x7E:
                    text.append(Character(UnicodeScalar(octet)))
                default:
                    let digits = String(octet)
                    text += "\\" + String(repeating: "0", count: 3 - digits.count) + digits
                }
            }
            text += "."
        }
        return text
    }

    // MARK: Relations

    /// The name with labels put in front, given as text: `name.prefixed("_mat-ims", "_udp")`. `nil` if it gets too long.
    public func prefixed(_ texts: String...) -> DomainName? {
        DomainName(labels: texts.map { Array($0.utf8) } + labels)
    }

    /// Whether this is the zone's name or below it.
    public func isWithin(_ zone: DomainName) -> Bool {
        let (own, other) = (labels.map(lowercased), zone.labels.map(lowercased))
        return own.suffix(other.count) == other[...]
    }
}

extension DomainName: Hashable {
    // A length octet is at most 63 and so never an upper-case letter: the whole wire form can be lowered at once.
    public static func == (a: DomainName, b: DomainName) -> Bool {
        a.wire.count == b.wire.count && lowercased(a.wire) == lowercased(b.wire)
    }

    public func hash(into hasher: inout Hasher) { hasher.combine(lowercased(wire)) }
}

/// ASCII letters in lower case, other octets as they are.
package func lowercased(_ octets: some Sequence<UInt8>) -> [UInt8] {
    octets.map { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) ? $0 | 0x20 : $0 }
}
