/// Where a node is: the value of a MAPPING option (section 4).
///
/// ```
/// HoA                16
/// HoA prefix length   1   128 for one node; shorter for a mobile network's home prefix
/// flags               1   zero
/// locator count       2   0..8; 0 withdraws the mapping
/// sequence            8   grows by at least 1; max(previous + 1, Unix time in ms)
/// lifetime            4   seconds, not 0
/// issued              8   Unix time in ms
/// locators: count x { MoA 16 | prefix length 1 | preference 1 | flags 1 zero | zero 1 }
/// ```
public struct MappingRecord: Hashable, Sendable {
    public static let locatorsMax = 8
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
    /// In order of preference, the first being where the node wants its packets.
    public var locators: [Locator]

    public init(hoa: HomeAddress, prefixLength: UInt8 = 128, sequence: UInt64, lifetime: UInt32, issued: UInt64, locators: [Locator]) {
        self.hoa = hoa
        self.prefixLength = prefixLength
        self.sequence = sequence
        self.lifetime = lifetime
        self.issued = issued
        self.locators = locators
    }

    public var prefix: IPPrefix { IPPrefix(covering: hoa.address, length: prefixLength) }
    public var isWithdrawal: Bool { locators.isEmpty }
    /// Unix time in ms. Saturates, as both fields come from the network.
    public var expires: UInt64 { Self.expires(issued: issued, lifetime: lifetime) }

    public static func expires(issued: UInt64, lifetime: UInt32) -> UInt64 {
        let (sum, overflow) = issued.addingReportingOverflow(UInt64(lifetime) * 1000)
        return overflow ? .max : sum
    }
    /// Whether every locator is the HoA itself: the node is at home.
    public var isAtHome: Bool { !locators.isEmpty && locators.allSatisfy { $0.moa.address == hoa.address } }

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

    init(decoding reader: inout SignalReader) throws(SignalError) {
        hoa = HomeAddress(try reader.address("MAPPING HoA"))
        prefixLength = try reader.uint8("HoA prefix length")
        try checkPrefix(hoa.address, prefixLength, "MAPPING HoA")
        try reader.zeros(1, "MAPPING flags")
        let count = Int(try reader.uint16("locator count"))
        guard count <= Self.locatorsMax else { throw .malformed("MAPPING of \(count) locators, at most \(Self.locatorsMax)") }
        sequence = try reader.uint64("MAPPING sequence")
        lifetime = try reader.uint32("MAPPING lifetime")
        issued = try reader.uint64("MAPPING issued")
        locators = []
        locators.reserveCapacity(count)
        for _ in 0..<count {
            let locator = try Locator(decoding: &reader)
            guard locator.prefixLength == prefixLength else {
                throw .malformed("locator \(locator.moa) has prefix length \(locator.prefixLength), its HoA \(prefixLength)")
            }
            guard !locators.contains(where: { $0.moa == locator.moa }) else { throw .malformed("MAPPING lists the locator \(locator.moa) twice") }
            locators.append(locator)
        }
        guard lifetime > 0 else { throw .malformed("MAPPING lifetime is 0 s") }
        let most = isAtHome || isWithdrawal ? Self.homeLifetimeMax : Self.lifetimeMax
        guard lifetime <= most else { throw .malformed("MAPPING lifetime of \(lifetime) s, at most \(most)") }
    }

    func encode(into writer: inout SignalWriter) {
        writer.address(hoa.address)
        writer.uint8(prefixLength)
        writer.uint8(0)
        writer.uint16(UInt16(truncatingIfNeeded: locators.count))
        writer.uint64(sequence)
        writer.uint32(lifetime)
        writer.uint64(issued)
        for locator in locators { locator.encode(into: &writer) }
    }

    /// The MAPPING value as it travels and is stored.
    public var octets: [UInt8] {
        var writer = SignalWriter()
        encode(into: &writer)
        return writer.octets
    }

    /// Reads a stored MAPPING value.
    public init(octets: [UInt8]) throws(SignalError) {
        var reader = SignalReader(octets)
        try self.init(decoding: &reader)
        try reader.finish("MAPPING")
    }
}

/// One place where a node can be reached: `MoA 16 | prefix length 1 | preference 1 | flags 1 zero | zero 1`.
///
/// It may be of another family than the HoA: that is not malformed (section 1), but only section 11's endpoints make use of such, so nodes
/// skip it here.
public struct Locator: Hashable, Sendable {
    public var moa: MobileAddress
    /// 128, or the mapping's for a mobile network's prefix (MoPre).
    public var prefixLength: UInt8
    /// Lower is preferred.
    public var preference: UInt8

    public init(_ moa: MobileAddress, prefixLength: UInt8 = 128, preference: UInt8 = 0) {
        self.moa = moa
        self.prefixLength = prefixLength
        self.preference = preference
    }

    init(decoding reader: inout SignalReader) throws(SignalError) {
        moa = MobileAddress(try reader.address("locator"))
        prefixLength = try reader.uint8("locator prefix length")
        try checkPrefix(moa.address, prefixLength, "locator")
        preference = try reader.uint8("locator preference")
        try reader.zeros(2, "locator flags")
    }

    func encode(into writer: inout SignalWriter) {
        writer.address(moa.address)
        writer.uint8(prefixLength)
        writer.uint8(preference)
        writer.zeros(2)
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

/// Section 1: bits beyond a prefix's length are zero, and IPv4's prefix includes the 96 bits that mark it as IPv4.
func checkPrefix(_ address: IPAddress, _ length: UInt8, _ field: String) throws(SignalError) {
    guard IPPrefix(address, length: length) != nil, length > address.family.leadingBits else {
        throw .malformed("\(field) \(address) does not fit prefix length \(length)")
    }
}
