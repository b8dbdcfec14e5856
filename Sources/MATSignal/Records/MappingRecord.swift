/// Where a node is: the value of a MAPPING option (sections 4 and 11.1).
///
/// ```
/// HoA                16
/// HoA prefix length   1   128 for one node; shorter for a mobile network's home prefix
/// flags               1   bit 0: E
/// locator count       2   0..8; 0 withdraws the mapping
/// sequence            8   grows by at least 1; max(previous + 1, Unix time in ms)
/// lifetime            4   seconds, not 0
/// issued              8   Unix time in ms
/// locators: count x { MoA 16 | prefix length 1 | preference 1 | flags 1 zero | zero 1 }
///     or, with E,   { address 16 | prefix length 1 | preference 1 | kind 1 | zero 1 | port 2 | zero 2 }
/// ```
/// E stands where there is another locator than MoAs, and only there; so what is listed decides of it.
public struct MappingRecord: Hashable, Sendable {
    /// Of all kinds together.
    public static let locatorsMax = 8
    /// Locators that are relays.
    public static let relaysMax = 4
    /// Flag E: locators have kinds.
    static let kindsFlag: UInt8 = 0x01
    /// Seconds: what a node asks for unless configured otherwise.
    public static let lifetimeDefault: UInt32 = 600
    /// Seconds: the most for a record whose locators are networks' addresses.
    public static let lifetimeMax: UInt32 = 3600
    /// Seconds: the most for a node at home, whose location does not change.
    public static let homeLifetimeMax: UInt32 = 604_800

    public var hoa: HomeAddress
    /// 128 for one node.
    public var prefixLength: UInt8
    public var sequence: UInt64
    /// Seconds from `issued`.
    public var lifetime: UInt32
    /// Unix time in ms.
    public var issued: UInt64
    /// Locators of all kinds in order of preference, the first being where the node wants its packets.
    public var places: [Place]

    public init(hoa: HomeAddress, prefixLength: UInt8 = 128, sequence: UInt64, lifetime: UInt32, issued: UInt64, locators: [Locator]) {
        self.init(
            hoa: hoa, prefixLength: prefixLength, sequence: sequence, lifetime: lifetime, issued: issued, places: locators.map(Place.moa))
    }

    public init(hoa: HomeAddress, prefixLength: UInt8 = 128, sequence: UInt64, lifetime: UInt32, issued: UInt64, places: [Place]) {
        self.hoa = hoa
        self.prefixLength = prefixLength
        self.sequence = sequence
        self.lifetime = lifetime
        self.issued = issued
        self.places = places
    }

    public var prefix: IPPrefix { IPPrefix(covering: hoa.address, length: prefixLength) }
    public var isWithdrawal: Bool { places.isEmpty }
    /// Unix time in ms. Saturates, as both fields come from the network.
    public var expires: UInt64 { Self.expires(issued: issued, lifetime: lifetime) }

    public static func expires(issued: UInt64, lifetime: UInt32) -> UInt64 {
        let (sum, overflow) = issued.addingReportingOverflow(UInt64(lifetime) * 1000)
        return overflow ? .max : sum
    }
    /// Whether every locator is the HoA itself: the node is at home.
    public var isAtHome: Bool {
        !places.isEmpty && places.allSatisfy { if case .moa(let locator) = $0 { locator.moa.address == hoa.address } else { false } }
    }

    public func lists(_ moa: MobileAddress) -> Bool {
        locators.contains { IPPrefix(covering: $0.moa.address, length: $0.prefixLength).contains(moa.address) }
    }

    /// What a node signs: this, then the MAPPING value.
    static let signingContext = Array("MAT mapping v1".utf8)

    var signedOctets: [UInt8] {
        var writer = SignalWriter()
        writer.bytes(Self.signingContext)
        encode(into: &writer)
        return writer.octets
    }

    public func signed(with key: SigningKey) -> SignedMapping? {
        key.sign(signedOctets).map { SignedMapping(record: self, signature: $0) }
    }

    // MARK: Wire

    /// - Parameter view: of a value without a fault.
    init(_ view: MappingRecordView) {
        self.init(
            hoa: HomeAddress(view.hoa), prefixLength: view.prefixLength, sequence: view.sequence, lifetime: view.lifetime, issued: view.issued,
            places: (0..<min(view.locatorsCount, Self.locatorsMax)).map(view.place))
    }

    func encode(into writer: inout SignalWriter) {
        writer.address(hoa.address)
        writer.uint8(prefixLength)
        writer.uint8(hasKinds ? Self.kindsFlag : 0)
        writer.uint16(UInt16(truncatingIfNeeded: places.count))
        writer.uint64(sequence)
        writer.uint32(lifetime)
        writer.uint64(issued)
        for place in places { place.encode(into: &writer, withKind: hasKinds) }
    }

    /// How many octets the MAPPING value has.
    public var octetsCount: Int {
        MappingRecordView.headOctets + places.count * (hasKinds ? MappingRecordView.placeOctets : MappingRecordView.moaOctets)
    }

    /// The MAPPING value as it travels and is stored.
    public var octets: [UInt8] {
        var writer = SignalWriter(reserving: octetsCount)
        encode(into: &writer)
        return writer.octets
    }

    /// Reads a stored MAPPING value.
    public init(octets: [UInt8]) throws(SignalError) {
        let read = octets.withUnsafeBytes { octets in Result { () throws(SignalError) in try MappingRecord(octets: octets) } }
        self = try read.get()
    }

    /// The same of octets in place, without an array.
    public init(octets: UnsafeRawBufferPointer) throws(SignalError) {
        let view = MappingRecordView(octets)
        if let fault = view.fault { throw fault.error(in: nil, .standard) }
        self.init(view)
    }
}

/// A mapping and its node's signature over it. Servers pass both on unchanged.
public struct SignedMapping: Hashable, Sendable {
    public let record: MappingRecord
    public let signature: Signature

    public init(record: MappingRecord, signature: Signature) {
        self.record = record
        self.signature = signature
    }
}
