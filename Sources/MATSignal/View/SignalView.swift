/// One message where it lies in its datagram: the parser that all readers share. It checks a message by the grammar that it is given
/// (`OptionTable`) and remembers where each option's value stands; readers then take what they need. Nothing is allocated, nothing is
/// read beyond the message, and no number in it can end the process.
///
/// ```
///  octets ──► init: header ──► read(table): each option ──► which must be there ──► values, by kind
///               │                 │                            │
///               └─ fault          └─ fault                     └─ fault: in words, if someone asks
/// ```
/// Whoever makes a view keeps the octets in place and unchanged for as long as it is used.
public struct SignalView {
    @usableFromInline let octets: OctetView
    /// A bit for each slot of the table whose option was there.
    @usableFromInline internal private(set) var present: UInt64 = 0
    /// For those, where the value of the first one begins, in words of four octets: a message has at most 255.
    @usableFromInline internal private(set) var places = InlineArray<64, UInt8>(repeating: 0)

    /// The message that begins at `start`, of which only the length has been looked at yet. If that is wrong there is no message, and the
    /// view is empty: `isEmpty` says so, `lengthFault` why.
    @inlinable @inline(__always)
    public init(_ datagram: UnsafeRawBufferPointer, from start: Int) {
        let all = OctetView(datagram)
        let count = Int(all.uint8(at: start &+ 3)) &* 4
        octets = count >= 8 && start >= 0 && count <= all.count &- start ? all.part(start..<start &+ count) : all.part(0..<0)
    }

    @inlinable @inline(__always) public var isEmpty: Bool { octets.count == 0 }

    /// Why there is no message at `start`.
    static func lengthFault(_ datagram: UnsafeRawBufferPointer, from start: Int) -> SignalFault {
        let left = datagram.count - start
        return left < SignalHeader.octetsCount
            ? .header(left: left) : .length(octets: Int(OctetView(datagram).uint8(at: start + 3)) * 4, left: left)
    }

    // MARK: Header

    /// Octets of the message, a multiple of 4.
    @inlinable @inline(__always) public var octetsCount: Int { octets.count }
    @inlinable @inline(__always) public var typeNumber: UInt8 { octets.uint8(at: 0) }
    @inlinable @inline(__always) public var type: MessageType? { MessageType(rawValue: typeNumber) }
    @inlinable @inline(__always) public var code: ResponseCode { ResponseCode(rawValue: octets.uint8(at: 1)) }
    /// Without them the body is the draft's (section 9).
    @inlinable @inline(__always) public var hasOptions: Bool { octets.uint8(at: 2) & 1 != 0 }
    @inlinable @inline(__always) public var sequence: UInt32 { octets.uint32(at: 4) }

    /// What stands behind the header.
    var body: [UInt8] { octets.array(SignalHeader.octetsCount..<octets.count) }

    // MARK: Options

    /// Checks the whole message.
    ///
    /// - Returns: `nil` if it is well-formed and has what it must have.
    public mutating func read(_ table: OptionTable) -> SignalFault? {
        let end = octets.count
        var place = SignalHeader.octetsCount
        // No kind is 0.
        var unsupported: UInt16 = 0
        /// An option whose follower must be next.
        var leader: UInt16 = 0
        while place < end {
            // A message's length and all steps in it are multiples of four, so there is a whole head.
            let head = octets.known(at: place, as: UInt32.self)
            let kind = OptionKind(rawValue: UInt16(truncatingIfNeeded: head >> 16))
            let length = Int(UInt16(truncatingIfNeeded: head))
            let start = place &+ 4
            let next = start &+ (length &+ 3) & ~3
            guard next <= end else { return .cutOff(kind, octets: length, left: end &- start) }
            guard length & 3 == 0 || octets.isZero(start &+ length..<next) else { return .padding(kind) }
            place = next
            let rule = table.rule(kind)
            guard rule.allows(UInt16(truncatingIfNeeded: length)) else { return .wrongLength(kind, octets: length) }
            if rule.content == OptionRule.address {
                let address = IPAddress(high: octets.known(at: start, as: UInt64.self), low: octets.known(at: start &+ 8, as: UInt64.self))
                guard address.isUsableUnicast else { return .badAddress(kind, address) }
            }
            // Most options have nothing special.
            if rule.traits != .isKnown || leader != 0 {
                guard rule.traits.contains(.isFollower) == (leader != 0) || standsAlone(kind, leader, table) else {
                    return leader != 0 ? .noFollower(OptionKind(rawValue: leader)) : .noLeader(kind)
                }
                guard rule.traits.contains(.isKnown) else {
                    if kind.isCritical, unsupported == 0 { unsupported = kind.rawValue }
                    continue
                }
                if rule.traits.contains(.hasMore), let fault = rule.fault(in: octets, Range(uncheckedBounds: (start, start &+ length)), kind) {
                    return fault
                }
                leader = rule.traits.contains(.hasFollower) ? kind.rawValue : 0
            }
            if present & kind.bit == 0 {
                present |= kind.bit
                places[kind.slot] = UInt8(truncatingIfNeeded: start / 4)
            } else if !rule.traits.contains(.isRepeatable) {
                return .repeated(kind)
            }
        }
        if leader != 0 { return .noFollower(OptionKind(rawValue: leader)) }
        if has(.xObserved), let fault = maskedEndpointFault { return fault }
        // Told after everything else was read, because a malformed message is malformed whatever else it asks for.
        if unsupported != 0 { return .unsupported(OptionKind(rawValue: unsupported)) }
        return missing(table)
    }

    /// Whether this message has an option without the one that it follows elsewhere.
    private func standsAlone(_ kind: OptionKind, _ leader: UInt16, _ table: OptionTable) -> Bool {
        leader == 0 && kind.hasSlot && type.map { table.rule(of: $0).alone & kind.bit != 0 } ?? false
    }

    @inline(__always)
    private func missing(_ table: OptionTable) -> SignalFault? {
        guard let type else { return nil }
        let missing = table.needs(of: type, code) & ~present
        guard missing == 0 else { return .missing(OptionKind(slot: missing.trailingZeroBitCount)) }
        guard present & table.asking(of: type) != 0 else { return nil }
        return self.missing(beside: table.rule(of: type), type)
    }

    /// - Parameter rule: of this type of message, with an option in the message that asks for others.
    private func missing(beside rule: MessageRule, _ type: MessageType) -> SignalFault? {
        if type.isRequest || code == .ok {
            let missing = rule.needs(beside: present) & ~present
            guard missing == 0 else { return .missing(OptionKind(slot: missing.trailingZeroBitCount)) }
        }
        if rule.needsOne != 0, present & rule.needsOne == 0 { return .missing(OptionKind(slot: rule.needsOne.trailingZeroBitCount)) }
        guard present & rule.certified != 0 else { return nil }
        if has(.certificate) { return has(.certID) ? .twoCertificates : nil }
        return has(.certID) ? nil : .missing(.certificate)
    }

    /// COOKIE may stand behind XOBSERVED, so it is known only at the end what that says. Without COOKIE the message is malformed anyway.
    private var maskedEndpointFault: SignalFault? {
        guard let cookie, let address = value(.xObserved).map({ XObserved($0).endpoint(under: cookie.client).address }) else { return nil }
        return address.isUsableUnicast ? nil : .badAddress(.xObserved, address)
    }

    // MARK: Values

    @inlinable @inline(__always)
    public func has(_ kind: OptionKind) -> Bool { present & kind.bit != 0 }

    /// Whether there is nothing but these (by their `bit`) and what the table does not know.
    @inlinable @inline(__always)
    public func hasOnly(_ kinds: UInt64) -> Bool { present & ~kinds == 0 }

    @inlinable @inline(__always)
    func place(_ kind: OptionKind) -> Int? { has(kind) ? Int(places[kind.slot]) &* 4 : nil }

    @inlinable @inline(__always)
    func length(at place: Int) -> Int { Int(octets.uint16(at: place &- 2)) }

    @inlinable @inline(__always)
    public func uint32(_ kind: OptionKind) -> UInt32? { place(kind).map { octets.uint32(at: $0) } }

    @inlinable @inline(__always)
    public func uint64(_ kind: OptionKind) -> UInt64? { place(kind).map { octets.uint64(at: $0) } }

    @inlinable @inline(__always)
    public func address(_ kind: OptionKind) -> IPAddress? { place(kind).map { octets.address(at: $0) } }

    @inlinable @inline(__always)
    public var cookie: Cookie? { place(.cookie).map { octets.cookie(at: $0, length: length(at: $0)) } }

    public var mapping: MappingRecordView? { value(.mapping).map(MappingRecordView.init) }

    /// The octets of an option's value.
    func value(_ kind: OptionKind) -> OctetView? { place(kind).map { octets.part($0..<$0 &+ length(at: $0)) } }

    /// The values of an option that may stand more than once.
    func values(_ kind: OptionKind) -> [OctetView] {
        guard let first = place(kind) else { return [] }
        var values: [OctetView] = []
        var place = first &- 4
        while place < octets.count {
            let length = Int(octets.uint16(at: place &+ 2))
            if octets.uint16(at: place) == kind.rawValue { values.append(octets.part(place &+ 4..<place &+ 4 &+ length)) }
            place &+= 4 &+ (length &+ 3) & ~3
        }
        return values
    }

    // MARK: What can't be read

    /// The cookie of a message that could not be read, for the answer that says so.
    var salvagedCookie: Cookie? { Self.salvagedCookie(octets.part(SignalHeader.octetsCount..<octets.count)) }

    /// The first COOKIE among these options, if it is a whole one.
    static func salvagedCookie(_ octets: OctetView) -> Cookie? {
        var place = 0
        while place &+ 4 <= octets.count {
            let length = Int(octets.uint16(at: place &+ 2))
            guard place &+ 4 &+ length <= octets.count else { return nil }
            if octets.uint16(at: place) == OptionKind.cookie.rawValue {
                return length == 8 || length == 24 ? octets.cookie(at: place &+ 4, length: length) : nil
            }
            place &+= 4 &+ (length &+ 3) & ~3
        }
        return nil
    }
}

extension OctetView {
    /// `client cookie 8 | server cookie 0 or 16`
    @inlinable @inline(__always)
    func cookie(at place: Int, length: Int) -> Cookie {
        Cookie(client: uint64(at: place), server: length == 24 ? serverCookie(at: place &+ 8) : nil)
    }

    @inlinable @inline(__always)
    func serverCookie(at place: Int) -> ServerCookie { ServerCookie(head: uint64(at: place), hash: uint64(at: place &+ 8)) }
}
