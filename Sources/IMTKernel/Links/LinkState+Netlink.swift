import IMTPlan

extension LinkState {
    /// Reads RTM_NEWLINK: ifinfomsg (family 1, pad 1, type 2, index 4, flags 4, change 4), then attributes.
    static func decode(_ incoming: NetlinkIncoming) -> (index: UInt32, state: LinkState)? {
        guard incoming.payload.count >= 16 else { return nil }
        let name = incoming.attributes(after: 16).first(KernelValues.linkName)?.string ?? ""
        return (
            incoming.payload.loadUnaligned(fromByteOffset: 4, as: UInt32.self),
            LinkState(
                name: name, flags: incoming.payload.loadUnaligned(fromByteOffset: 8, as: UInt32.self),
                hardware: incoming.payload.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
        )
    }
}

extension AddressState {
    /// Reads RTM_NEWADDR: ifaddrmsg (family 1, prefix length 1, flags 1, scope 1, index 4), then attributes.
    static func decode(_ incoming: NetlinkIncoming) -> AddressState? {
        let header = incoming.payload
        guard header.count >= 8 else { return nil }
        let attributes = incoming.attributes(after: 8)
        // IFA_ADDRESS is the far end on a point-to-point link; IFA_LOCAL, where present, is ours.
        let address = attributes.first(KernelValues.addressLocal)?.address ?? attributes.first(KernelValues.addressAddress)?.address
        guard let address else { return nil }
        // ifa_cacheinfo: preferred 4, valid 4, created 4, updated 4.
        let times = attributes.first(KernelValues.addressCacheInfo)?.value
        return AddressState(
            address: address, interfaceIndex: header.loadUnaligned(fromByteOffset: 4, as: UInt32.self), prefixLength: header[1],
            flags: attributes.first(KernelValues.addressFlags)?.u32 ?? UInt32(header[2]), scope: header[3],
            created: times.flatMap { $0.count >= 12 ? $0.loadUnaligned(fromByteOffset: 8, as: UInt32.self) : nil } ?? 0)
    }
}
