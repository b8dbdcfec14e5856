import MATSignal

/// What a router advertises of a NAT64 (RFC 8781): the prefix in which IPv4 addresses stand.
public struct AdvertisedTranslator: Hashable, Sendable {
    public let prefix: IPPrefix
    /// In seconds; 0: it holds no more.
    public let lifetime: UInt32

    package init(prefix: IPPrefix, lifetime: UInt32) { (self.prefix, self.lifetime) = (prefix, lifetime) }

    private static let optionType: UInt8 = 38
    /// By the number that stands for it in the option.
    private static let lengths: [UInt8] = [96, 64, 56, 48, 40, 32]

    /// Those in the options of an advertisement, in order. What is cut short, or unknown, is passed over.
    ///
    /// ```
    /// { type 1 = 38 | length 1 = 2, in 8 octets | lifetime 13 bits, in 8 s | prefix length 3 bits | prefix 12 }
    /// ```
    package static func all(in options: [UInt8]) -> [AdvertisedTranslator] {
        var result: [AdvertisedTranslator] = []
        var rest = options[...]
        while rest.count >= 8 {
            let option = Array(rest.prefix(Int(rest[rest.startIndex + 1]) * 8))
            guard option.count >= 8 else { break }
            rest = rest.dropFirst(option.count)
            guard option[0] == optionType, option.count == 16 else { continue }
            let scaled = UInt16(option[2]) << 8 | UInt16(option[3])
            let number = Int(scaled & 7)
            guard number < lengths.count, let address = IPAddress(octets: Array(option[4...]) + [0, 0, 0, 0]) else { continue }
            result.append(AdvertisedTranslator(prefix: IPPrefix(covering: address, length: lengths[number]), lifetime: UInt32(scaled >> 3) * 8))
        }
        return result
    }
}
