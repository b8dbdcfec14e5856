/// The grammar of messages as a value: which options there are, what their values look like, and which of them a message must have.
/// Every reader of messages goes by it (`SignalView`): the codec, the IMS's query path, and what looks over datagrams before the IMS's
/// core does. An option is taught to all of them by a row in `standard`, or in a table of one's own that they are given.
///
/// Readers ask it for each option of each datagram and in many threads, so it is kept in memory that is made once and never given back,
/// without a reference count that the threads would share: there is one table in a daemon, and a few in the tests.
public struct OptionTable: @unchecked Sendable {
    private let content: UnsafePointer<Content>

    private struct Content {
        var rules = InlineArray<64, OptionRule>(repeating: OptionRule())
        /// What messages need whatever their code, by type.
        var needs = InlineArray<32, UInt64>(repeating: 0)
        /// The options that ask for others beside them, by type: nearly always none is there.
        var asking = InlineArray<32, UInt64>(repeating: 0)
        var messages = InlineArray<32, MessageRule>(repeating: MessageRule())
        var definitions: [OptionDefinition]
        var messageDefinitions: [MessageDefinition]
    }

    /// - Parameters:
    ///   - options: kinds 0x0000-0x001F and 0x8000-0x801F, each once.
    ///   - messages: of the types below 32.
    public init(_ options: [OptionDefinition], _ messages: [MessageDefinition]) {
        var content = Content(definitions: options, messageDefinitions: messages)
        for option in options {
            precondition(option.kind.hasSlot, "an option of this kind has no place in a table")
            content.rules[option.kind.slot] = OptionRule(option, follows: options.contains { $0.follower == option.kind })
        }
        for message in messages where Int(message.type.rawValue) < content.messages.count {
            let rule = MessageRule(message)
            content.messages[Int(message.type.rawValue)] = rule
            content.needs[Int(message.type.rawValue)] = rule.needs
            content.asking[Int(message.type.rawValue)] = rule.asking
        }
        let memory = UnsafeMutablePointer<Content>.allocate(capacity: 1)
        memory.initialize(to: content)
        self.content = UnsafePointer(memory)
    }

    /// One without traits if the kind is unknown.
    @inline(__always)
    func rule(_ kind: OptionKind) -> OptionRule { kind.hasSlot ? content.pointee.rules[kind.slot] : OptionRule() }

    /// The options that a message must have; a response's depend on its code.
    @inline(__always)
    func needs(of type: MessageType, _ code: ResponseCode) -> UInt64 {
        let index = Int(type.rawValue) & 31
        return type.isRequest ? content.pointee.needs[index] : content.pointee.messages[index].needs(with: code)
    }

    /// The options of a message that ask for others beside them.
    @inline(__always)
    func asking(of type: MessageType) -> UInt64 { content.pointee.asking[Int(type.rawValue) & 31] }

    func rule(of type: MessageType) -> MessageRule { content.pointee.messages[Int(type.rawValue) & 31] }

    // MARK: For people and for what is rare

    public var options: [OptionDefinition] { content.pointee.definitions }
    public var messages: [MessageDefinition] { content.pointee.messageDefinitions }

    public func name(_ kind: OptionKind) -> String {
        options.first { $0.kind == kind }?.name ?? "option 0x" + String(kind.rawValue, radix: 16)
    }
}

/// What a reader checks of an option, in eight octets.
struct OptionRule {
    struct Traits: OptionSet {
        let rawValue: UInt8
        static let isKnown = Traits(rawValue: 1)
        static let isRepeatable = Traits(rawValue: 2)
        static let hasFollower = Traits(rawValue: 4)
        static let isFollower = Traits(rawValue: 8)
        /// There is something else in the value that can be wrong than an address that it begins with.
        static let hasMore = Traits(rawValue: 16)
    }

    var traits: Traits = []
    var content: UInt8 = 0
    var reservedStart: UInt8 = 0
    var reservedEnd: UInt8 = 0
    var lengthMin: UInt16 = 0
    var lengthMax = UInt16.max
    var lengthStep: UInt16 = 1

    init() {}

    init(_ option: OptionDefinition, follows: Bool) {
        traits = .isKnown
        if option.isRepeatable { traits.insert(.isRepeatable) }
        if option.follower != nil { traits.insert(.hasFollower) }
        if follows { traits.insert(.isFollower) }
        if (option.content != .octets && option.content != .address) || !option.reserved.isEmpty { traits.insert(.hasMore) }
        content = Self.number(option.content)
        reservedStart = UInt8(clamping: option.reserved.lowerBound)
        reservedEnd = UInt8(clamping: option.reserved.upperBound)
        let (least, step, most) =
            switch option.length {
            case .exactly(let count): (count, 1, count)
            case .either(let a, let b): (min(a, b), max(1, abs(b - a)), max(a, b))
            case .upTo(let most): (0, 1, most)
            case .steps(let least, let step, let most): (least, max(1, step), most)
            case .any: (0, 1, Int(UInt16.max))
            }
        (lengthMin, lengthStep, lengthMax) = (UInt16(clamping: least), UInt16(clamping: step), UInt16(clamping: most))
    }

    static let address: UInt8 = 1
    static let prefix: UInt8 = 2
    static let mapping: UInt8 = 3
    static let text: UInt8 = 4
    static let zeros: UInt8 = 5
    static let maskedEndpoint: UInt8 = 6
    static let candidates: UInt8 = 7
    static let wanted: UInt8 = 8

    private static func number(_ content: OptionDefinition.Content) -> UInt8 {
        switch content {
        case .octets: 0
        case .address: address
        case .prefix: prefix
        case .mapping: mapping
        case .text: text
        case .zeros: zeros
        case .maskedEndpoint: maskedEndpoint
        case .candidates: candidates
        case .wanted: wanted
        }
    }

    @inline(__always)
    func allows(_ length: UInt16) -> Bool {
        if length == lengthMin || length == lengthMax { return true }
        return length > lengthMin && length < lengthMax && (length &- lengthMin) % lengthStep == 0
    }
}

/// Which options must be in a message: a bit for each slot of the table.
struct MessageRule {
    private(set) var needs: UInt64 = 0
    /// The option that comes with a certificate.
    private(set) var certified: UInt64 = 0
    /// One of these must be there, if any are named.
    private(set) var needsOne: UInt64 = 0
    /// The option that follows none here.
    private(set) var alone: UInt64 = 0
    private var needsWhateverCode: UInt64 = 0
    private var needsWith = InlineArray<4, (code: ResponseCode, needs: UInt64)>(repeating: (.ok, 0))
    private var needsBeside = InlineArray<2, (option: UInt64, needs: UInt64)>(repeating: (0, 0))

    init() {}

    init(_ message: MessageDefinition) {
        needs = Self.set(message.needs)
        certified = message.certified?.bit ?? 0
        needsOne = Self.set(message.needsOne)
        alone = message.alone?.bit ?? 0
        needsWhateverCode = Self.set(message.needs.prefix(1))
        precondition(message.needsWith.count <= needsWith.count, "room for \(needsWith.count) codes")
        for (index, row) in message.needsWith.enumerated() { needsWith[index] = (row.key, Self.set(row.value)) }
        precondition(message.needsBeside.count <= needsBeside.count, "room for \(needsBeside.count) options")
        for (index, row) in message.needsBeside.enumerated() { needsBeside[index] = (row.key.bit, Self.set(row.value)) }
    }

    /// All options that ask for others.
    var asking: UInt64 {
        // Where one of several is needed, what the message has in any case asks for it.
        needsBeside.indices.reduce(certified | (needsOne == 0 ? 0 : needs)) { $0 | needsBeside[$1].option }
    }

    private static func set(_ kinds: some Sequence<OptionKind>) -> UInt64 { kinds.reduce(0) { $0 | $1.bit } }

    /// What a response with this code needs.
    @inline(__always)
    func needs(with code: ResponseCode) -> UInt64 {
        guard !code.needsOnlyCookie else { return needsWhateverCode }
        var all = needs
        for index in needsWith.indices where needsWith[index].code == code { all |= needsWith[index].needs }
        return all
    }

    /// What is needed beside these options.
    func needs(beside present: UInt64) -> UInt64 {
        needsBeside.indices.reduce(0) { needsBeside[$1].option & present != 0 ? $0 | needsBeside[$1].needs : $0 }
    }
}
