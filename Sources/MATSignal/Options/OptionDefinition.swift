/// One row of the table of options (protocol.md section 3): what every reader has to know of an option, whatever it makes of it.
public struct OptionDefinition: Sendable {
    /// How many octets the value may have.
    public enum Length: Hashable, Sendable {
        case exactly(Int)
        case either(Int, Int)
        case upTo(Int)
        /// `from`, and any number of `by` more, `to` at most.
        case steps(from: Int, by: Int, to: Int)
        case any
    }

    /// What the value begins with or is, as far as it can be malformed.
    public enum Content: Hashable, Sendable {
        case octets
        /// An address that a host can have (section 2).
        case address
        /// Such an address, and a prefix length that fits it (section 1).
        case prefix
        /// A prefix of either kind of address, or an address of full length (section 12).
        case wanted
        /// Such an address and a port under the client cookie (section 11): what they are shows once COOKIE is read.
        case maskedEndpoint
        /// Section 11's candidates, each of which begins with an address.
        case candidates
        /// Section 4's record.
        case mapping
        /// UTF-8.
        case text
        /// Nothing but zeros.
        case zeros
    }

    public let kind: OptionKind
    public let name: String
    public let length: Length
    public let content: Content
    /// Reserved octets of the value, to be zero.
    public let reserved: Range<Int>
    /// Whether it may stand in a message more than once: section 7 says "per" or "each" of it.
    public let isRepeatable: Bool
    /// The option that must stand directly behind it, and nowhere else: a signature is found by what it signs.
    public let follower: OptionKind?

    public init(
        _ kind: OptionKind, _ name: String, _ length: Length, _ content: Content = .octets, reserved: Range<Int> = 0..<0, isRepeatable: Bool = false,
        follower: OptionKind? = nil
    ) {
        self.kind = kind
        self.name = name
        self.length = length
        self.content = content
        self.reserved = reserved
        self.isRepeatable = isRepeatable
        self.follower = follower
    }
}

/// One row of the table of messages (protocol.md sections 7, 11 and 12): which options one must have. All others are optional.
public struct MessageDefinition: Sendable {
    public let type: MessageType
    /// Mandatory, in the order in which a missing one is named. A response whose code says that it could not be acted on (3, 9, 10) needs
    /// only the first.
    public let needs: [OptionKind]
    /// What a response with this code needs beside those.
    public let needsWith: [ResponseCode: [OptionKind]]
    /// What it must have beside an option that it need not have; in a response only with code ok.
    public let needsBeside: [OptionKind: [OptionKind]]
    /// The option that comes with a certificate if it is there: CERTIFICATE or CERT-ID, and not both.
    public let certified: OptionKind?
    /// One of these must be there.
    public let needsOne: [OptionKind]
    /// An option that follows another one elsewhere, and here stands anywhere.
    public let alone: OptionKind?

    public init(
        _ type: MessageType, _ needs: [OptionKind], needsWith: [ResponseCode: [OptionKind]] = [:], needsBeside: [OptionKind: [OptionKind]] = [:],
        certified: OptionKind? = nil, needsOne: [OptionKind] = [], alone: OptionKind? = nil
    ) {
        self.type = type
        self.needs = needs
        self.needsWith = needsWith
        self.needsBeside = needsBeside
        self.certified = certified
        self.needsOne = needsOne
        self.alone = alone
    }
}
