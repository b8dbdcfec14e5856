/// A MAPPING value where it lies (sections 4 and 11.1; `MappingRecord` has the drawing). What it says can be believed once `fault` is `nil`.
public struct MappingRecordView {
    /// Octets before the locators.
    public static let headOctets = 40
    /// Octets of a locator without flag E.
    static let moaOctets = 20
    /// Octets of a locator with it.
    static let placeOctets = 24
    /// Octets of a record with as many locators as there can be.
    public static let octetsMax = headOctets + MappingRecord.locatorsMax * placeOctets

    /// What a locator's kind octet says.
    enum Kind {
        static let moa: UInt8 = 0
        static let endpoint: UInt8 = 1
        static let relay: UInt8 = 2
    }

    private let octets: OctetView

    public init(_ octets: OctetView) { self.octets = octets }
    public init(_ octets: UnsafeRawBufferPointer) { self.init(OctetView(octets)) }

    public var hoa: IPAddress { octets.address(at: 0) }
    public var prefixLength: UInt8 { octets.uint8(at: 16) }
    /// Flag E: each locator says of what kind it is.
    public var hasKinds: Bool { octets.uint8(at: 17) & MappingRecord.kindsFlag != 0 }
    /// Locators of any kind.
    public var locatorsCount: Int { Int(octets.uint16(at: 18)) }
    public var sequence: UInt64 { octets.uint64(at: 20) }
    /// Seconds.
    public var lifetime: UInt32 { octets.uint32(at: 28) }
    /// Unix time in ms.
    public var issued: UInt64 { octets.uint64(at: 32) }

    /// Octets of each of them.
    public var locatorOctets: Int { hasKinds ? Self.placeOctets : Self.moaOctets }

    private func place(_ index: Int) -> Int { Self.headOctets &+ index &* locatorOctets }
    private func kind(_ index: Int) -> UInt8 { hasKinds ? octets.uint8(at: place(index) &+ 18) : Kind.moa }
    private func address(_ index: Int) -> IPAddress { octets.address(at: place(index)) }
    private func preference(_ index: Int) -> UInt8 { octets.uint8(at: place(index) &+ 17) }

    /// Where signalling for it goes: a MoA's node listens at the node port.
    private func endpoint(_ index: Int) -> Endpoint {
        Endpoint(address(index), port: kind(index) == Kind.moa ? SignalPort.node : octets.uint16(at: place(index) &+ 20))
    }

    func place(at index: Int) -> MappingRecord.Place {
        switch kind(index) {
        case Kind.moa:
            .moa(Locator(MobileAddress(address(index)), prefixLength: octets.uint8(at: place(index) &+ 16), preference: preference(index)))
        case Kind.endpoint: .endpoint(endpoint(index), preference: preference(index))
        case Kind.relay: .relay(endpoint(index), preference: preference(index))
        default: .unknown(UnknownPlace(octets, at: place(index)))
        }
    }

    // MARK: What is wrong with it

    public var fault: SignalFault? {
        guard octets.count >= Self.headOctets else { return .wrongLength(.mapping, octets: octets.count) }
        let count = locatorsCount
        if let fault = octets.prefixFault(at: 0, .mapping) { return fault }
        guard octets.uint8(at: 17) & ~MappingRecord.kindsFlag == 0 else { return .notZero(.mapping) }
        guard count <= MappingRecord.locatorsMax else { return .locatorsCount(count) }
        guard octets.count == place(count) else { return .locatorsLength(octets: octets.count, count: count, each: locatorOctets) }
        var isAtHome = true
        for index in 0..<count {
            if let fault = fault(of: index) { return fault }
            if kind(index) != Kind.moa || address(index) != hoa { isAtHome = false }
        }
        if hasKinds, let fault = kindsFault { return fault }
        // A withdrawal, without locators, may last as long as a node at home.
        let most = isAtHome ? MappingRecord.homeLifetimeMax : MappingRecord.lifetimeMax
        return lifetime > 0 && lifetime <= most ? nil : .lifetime(lifetime, max: most)
    }

    private func fault(of index: Int) -> SignalFault? {
        let (kind, address, start) = (kind(index), address(index), place(index))
        // What a later version put there is not ours to judge.
        guard kind <= Kind.relay else { return nil }
        guard address.isUsableUnicast else { return .badLocator(address) }
        let length = octets.uint8(at: start &+ 16)
        let wanted = kind == Kind.moa ? prefixLength : 128
        guard length == wanted, isPrefix(address, length) else { return .locatorPrefix(address, length: length, wanted: wanted) }
        if hasKinds {
            let port = octets.uint16(at: start &+ 20)
            guard (port == 0) == (kind == Kind.moa) else { return .locatorPort(address, port: port) }
            guard octets.uint8(at: start &+ 19) == 0, octets.uint16(at: start &+ 22) == 0 else { return .notZero(.mapping) }
        } else if octets.uint16(at: start &+ 18) != 0 {
            return .notZero(.mapping)
        }
        // There are eight at most.
        for earlier in 0..<index where self.kind(earlier) <= Kind.relay && endpoint(earlier) == endpoint(index) { return .locatorTwice(address) }
        return nil
    }

    /// What the kinds of the locators say of one another.
    private var kindsFault: SignalFault? {
        var (moas, relays) = (0, 0)
        // -1 for none.
        var leastPreferred = -1
        var preferredRelay: (index: Int, preference: Int)?
        for index in 0..<locatorsCount {
            let preference = Int(preference(index))
            switch kind(index) {
            case Kind.relay:
                relays += 1
                if preference < preferredRelay?.preference ?? .max { preferredRelay = (index, preference) }
            case Kind.moa:
                moas += 1
                leastPreferred = max(leastPreferred, preference)
            case Kind.endpoint: leastPreferred = max(leastPreferred, preference)
            default: break
            }
        }
        guard moas < locatorsCount else { return .onlyMoAs }
        guard relays <= MappingRecord.relaysMax else { return .relaysCount(relays) }
        guard let preferredRelay, preferredRelay.preference <= leastPreferred else { return nil }
        return .relayPreferred(address(preferredRelay.index))
    }
}

/// Section 1: bits beyond a prefix's length are zero, and IPv4's prefix includes the 96 bits that mark it as IPv4.
@inline(__always)
private func isPrefix(_ address: IPAddress, _ length: UInt8) -> Bool {
    length > address.family.leadingBits && length <= 128 && address.masked(to: length) == address
}

extension OctetView {
    /// What is wrong with `address 16 | prefix length 1`, of the option's HoA.
    func prefixFault(at place: Int, _ kind: OptionKind) -> SignalFault? {
        let (address, length) = (address(at: place), uint8(at: place &+ 16))
        guard address.isUsableUnicast else { return .badAddress(kind, address) }
        return isPrefix(address, length) ? nil : .badPrefix(kind, address, length: length)
    }
}
