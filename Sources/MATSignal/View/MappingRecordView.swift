/// A MAPPING value where it lies (section 4; `MappingRecord` has the drawing). What it says can be believed once `fault` is `nil`.
public struct MappingRecordView {
    /// Octets before the locators.
    public static let headOctets = 40
    public static let locatorOctets = 20

    private let octets: OctetView

    public init(_ octets: OctetView) { self.octets = octets }
    public init(_ octets: UnsafeRawBufferPointer) { self.init(OctetView(octets)) }

    public var hoa: IPAddress { octets.address(at: 0) }
    public var prefixLength: UInt8 { octets.uint8(at: 16) }
    public var locatorsCount: Int { Int(octets.uint16(at: 18)) }
    public var sequence: UInt64 { octets.uint64(at: 20) }
    /// Seconds.
    public var lifetime: UInt32 { octets.uint32(at: 28) }
    /// Unix time in ms.
    public var issued: UInt64 { octets.uint64(at: 32) }

    private func place(_ index: Int) -> Int { Self.headOctets &+ index &* Self.locatorOctets }

    public func moa(_ index: Int) -> IPAddress { octets.address(at: place(index)) }

    func locator(_ index: Int) -> Locator {
        Locator(
            MobileAddress(moa(index)), prefixLength: octets.uint8(at: place(index) &+ 16), preference: octets.uint8(at: place(index) &+ 17))
    }

    /// What is wrong with it.
    public var fault: SignalFault? {
        guard octets.count >= Self.headOctets else { return .wrongLength(.mapping, octets: octets.count) }
        let (hoa, length, count) = (hoa, prefixLength, locatorsCount)
        if let fault = octets.prefixFault(at: 0, .mapping) { return fault }
        guard octets.uint8(at: 17) == 0 else { return .notZero(.mapping) }
        guard count <= MappingRecord.locatorsMax else { return .locatorsCount(count) }
        guard octets.count == place(count) else { return .wrongLength(.mapping, octets: octets.count) }
        var isAtHome = true
        for index in 0..<count {
            let moa = moa(index)
            guard moa.isUsableUnicast else { return .badLocator(moa) }
            let locatorLength = octets.uint8(at: place(index) &+ 16)
            guard locatorLength == length, isPrefix(moa, length) else { return .locatorPrefix(moa, length: locatorLength, hoaLength: length) }
            guard octets.uint16(at: place(index) &+ 18) == 0 else { return .notZero(.mapping) }
            // There are eight at most.
            for earlier in 0..<index where self.moa(earlier) == moa { return .locatorTwice(moa) }
            if moa != hoa { isAtHome = false }
        }
        // A withdrawal, without locators, may last as long as a node at home.
        let most = isAtHome ? MappingRecord.homeLifetimeMax : MappingRecord.lifetimeMax
        return lifetime > 0 && lifetime <= most ? nil : .lifetime(lifetime, max: most)
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
