/// Octets as pairs of hexadecimal digits: secrets, attributes and records in files, keys of the store, RDATA in zones.
public enum Hexadecimal {
    private static let digits = Array("0123456789abcdef".utf8)

    public static func write(_ octets: some Sequence<UInt8>) -> String {
        String(decoding: octets.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }

    /// - Returns: `nil` unless these are pairs of digits; large ones are taken too.
    public static func parse(_ text: some StringProtocol) -> [UInt8]? {
        let values = text.utf8.map(value)
        guard values.count % 2 == 0 else { return nil }
        var octets: [UInt8] = []
        octets.reserveCapacity(values.count / 2)
        for place in stride(from: 0, to: values.count, by: 2) {
            guard let high = values[place], let low = values[place + 1] else { return nil }
            octets.append(high << 4 | low)
        }
        return octets
    }

    private static func value(_ character: UInt8) -> UInt8? {
        switch character {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
