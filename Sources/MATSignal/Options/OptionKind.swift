/// What an option holds (section 3).
public struct OptionKind: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt16
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let pad = OptionKind(rawValue: 0x0001)
    public static let cookie = OptionKind(rawValue: 0x0002)
    public static let hoa = OptionKind(rawValue: 0x0003)
    public static let moa = OptionKind(rawValue: 0x0004)
    public static let peerHoA = OptionKind(rawValue: 0x0005)
    public static let mapping = OptionKind(rawValue: 0x0006)
    public static let signature = OptionKind(rawValue: 0x0007)
    public static let certificate = OptionKind(rawValue: 0x0008)
    public static let lifetime = OptionKind(rawValue: 0x0009)
    public static let subscribe = OptionKind(rawValue: 0x000A)
    public static let locatorProof = OptionKind(rawValue: 0x000B)
    public static let observed = OptionKind(rawValue: 0x000C)
    public static let certID = OptionKind(rawValue: 0x000D)
    public static let text = OptionKind(rawValue: 0x000F)

    /// A receiver that does not know a critical option must not act on the message.
    public var isCritical: Bool { rawValue >= 0x8000 }

    public var description: String {
        switch self {
        case .pad: "PAD"
        case .cookie: "COOKIE"
        case .hoa: "HOA"
        case .moa: "MOA"
        case .peerHoA: "PEER-HOA"
        case .mapping: "MAPPING"
        case .signature: "SIGNATURE"
        case .certificate: "CERTIFICATE"
        case .lifetime: "LIFETIME"
        case .subscribe: "SUBSCRIBE"
        case .locatorProof: "LOCATOR-PROOF"
        case .observed: "OBSERVED"
        case .certID: "CERT-ID"
        case .text: "TEXT"
        default: "option 0x" + String(rawValue, radix: 16)
        }
    }
}
