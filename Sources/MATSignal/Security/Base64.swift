/// RFC 4648 base64 with padding: keys and certificates in files, DNS and commands. Not Foundation's: this module imports nothing that does
/// I/O, and a text that is not in the one canonical form (bits behind the last octet) is refused here.
public enum Base64 {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    public static func write(_ octets: [UInt8]) -> String {
        var text = [UInt8]()
        for start in stride(from: 0, to: octets.count, by: 3) {
            let group = octets[start..<min(start + 3, octets.count)]
            let bits = group.reduce(0) { $0 << 8 | Int($1) } << (8 * (3 - group.count))
            for place in 0..<4 {
                text.append(place <= group.count ? alphabet[bits >> (18 - 6 * place) & 63] : UInt8(ascii: "="))
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// `nil` unless the text is exactly what `write` yields for some octets.
    public static func parse(_ text: some Collection<UInt8>) -> [UInt8]? {
        guard text.count % 4 == 0 else { return nil }
        var octets = [UInt8]()
        var (bits, held) = (0, 0)
        for character in text where character != UInt8(ascii: "=") {
            guard let value = alphabet.firstIndex(of: character) else { return nil }
            (bits, held) = (bits << 6 | value, held + 6)
            if held >= 8 {
                held -= 8
                octets.append(UInt8(truncatingIfNeeded: bits >> held))
                bits &= (1 << held) - 1
            }
        }
        return write(octets).utf8.elementsEqual(text) ? octets : nil
    }

    // MARK: For names of files and links

    /// RFC 4648 base64url, without padding.
    public static func writeForURL(_ octets: [UInt8]) -> String {
        String(decoding: write(octets).utf8.filter { $0 != UInt8(ascii: "=") }.map(forURL), as: UTF8.self)
    }

    /// `nil` unless the text is exactly what `writeForURL` yields for some octets.
    public static func parseForURL(_ text: some Collection<UInt8>) -> [UInt8]? {
        guard !text.contains(where: { $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "=") }) else { return nil }
        let standard = text.map { $0 == UInt8(ascii: "-") ? UInt8(ascii: "+") : $0 == UInt8(ascii: "_") ? UInt8(ascii: "/") : $0 }
        return parse(standard + Array(repeating: UInt8(ascii: "="), count: (4 - standard.count % 4) % 4))
    }

    private static func forURL(_ character: UInt8) -> UInt8 {
        switch character {
        case UInt8(ascii: "+"): UInt8(ascii: "-")
        case UInt8(ascii: "/"): UInt8(ascii: "_")
        default: character
        }
    }
}
