// A mobile network's mapping (the paper's Mobile Prefix, MoPre): one record for all addresses of a home prefix, each of which is
// found by replacing the leading bits (section 4). For one node's record each of these is what it would be anyway.

extension MappingRecord {
    /// Whether it speaks for a whole home prefix.
    public var isNetwork: Bool { prefixLength < 128 }

    /// Where the node of this HoA can be reached, in the record's order.
    ///
    /// - Parameter hoa: an address of the record's prefix.
    public func moas(of hoa: HomeAddress) -> [MobileAddress] {
        guard isNetwork else { return locators.map(\.moa) }
        return locators.map { MobileAddress(hoa.address.replacingPrefix(with: $0.moa.address, length: prefixLength)) }
    }

    /// Whose address this is, by the record; `nil` if it lists no such locator.
    public func hoa(at moa: MobileAddress) -> HomeAddress? {
        guard lists(moa) else { return nil }
        return isNetwork ? HomeAddress(moa.address.replacingPrefix(with: hoa.address, length: prefixLength)) : hoa
    }

    /// Where the node that answers for a locator listens: the locator itself or, behind a MoPre, the MoPre's base address, which the
    /// mobile router has. Hosts behind it know nothing of MAT.
    public func signallingAddress(of moa: MobileAddress) -> IPAddress {
        isNetwork ? moa.address.masked(to: prefixLength) : moa.address
    }
}
