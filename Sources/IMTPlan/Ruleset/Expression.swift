/// One step of a rule. A rule runs its steps in order and ends at the first that does not match.
///
/// Values, not objects: the ruleset of a family can be built, compared and printed without a kernel.
package enum Expression: Hashable {
    /// Loads octets of a header into registers. Ends the rule if the packet is too short, or a fragment without that header.
    case load(HeaderField, into: Register)
    /// Writes registers over header octets and mends checksums.
    case write(HeaderField, from: Register, checksum: ChecksumRepair)
    /// Looks registers up in a set (no `into`) or map.
    case lookup(set: String, key: Register, into: Register?)
    /// Ends the rule if the set has the key.
    case absent(set: String, key: Register)
    case meta(MetaKey, into: Register)
    case setMeta(MetaKey, from: Register)
    case immediate([UInt8], into: Register)
    case compare(Register, Comparison, [UInt8])
    /// Keeps the bits of a mask, then turns over those of `turning` (none if it is empty).
    case mask(Register, [UInt8], turning: [UInt8] = [])
    /// Changes a dynamic set or, with `data`, map. Ends the rule if it is full.
    case update(ElementChange, set: String, setID: UInt32, key: Register, data: Register?, timeoutMilliseconds: UInt64)
    /// Whether the socket that would get the packet is bound to no address: 1 or 0. Ends the rule if there is no socket.
    case socketIsWildcard(into: Register)
    /// Whether that socket may answer for foreign addresses: 1 or 0. Of use because it ends the rule only if there is no socket
    /// at all: a half-open or lingering connection (which `socketIsWildcard` does not look at) is one.
    case socketIsTransparent(into: Register)
    /// What an address is to this host's routing: a type of rtnetlink's in four octets of the host's order, 2 for an own address.
    case addressType(of: PacketEnd, into: Register)
    case limit(packetsPerSecond: UInt64, burst: UInt32)
    /// Copies the packet whole to the NFLOG group, with a word on why.
    case log(group: UInt16, prefix: String)
    case noTracking
    /// Whether an IPsec transformation is still to come for the packet: 1 or 0.
    case willBeEncrypted(into: Register)
    case masquerade
    case counter
    case verdict(Verdict)
}

/// NFTA_FIB_F_*
package enum PacketEnd: UInt32 {
    case source = 1
    case destination = 2
}

/// What a packet does to an element (enum nft_dynset_ops).
package enum ElementChange: UInt32 {
    /// Puts it there if it is not, and leaves its time alone if it is.
    case add = 0
    /// Puts it there, or renews its time; its data stay.
    case renew = 1
    /// Takes it away; of a map too, although the kernel wants to be told data then.
    case remove = 2
}

/// A 32-bit register, 0...15. Wider values take adjacent ones.
package struct Register: Hashable {
    package let index: UInt32
    package init(_ index: UInt32) { self.index = index }
    /// NFT_REG32_00 is 8.
    package var number: UInt32 { 8 + index }
}

package struct HeaderField: Hashable {
    package enum Base: UInt32 {
        case network = 1
        case transport = 2
    }
    package var base: Base
    package var offset: UInt32
    package var length: UInt32

    package init(base: Base, offset: UInt32, length: UInt32) {
        self.base = base
        self.offset = offset
        self.length = length
    }
}

/// Which checksum a write must mend (nft_payload_set in the kernel's nft_payload.c).
package enum ChecksumRepair: Hashable {
    case none
    /// The Internet checksum at this offset of the same header, and the transport checksum through its pseudo header if so said.
    case internet(offset: UInt32, pseudoHeader: Bool)
    /// Only the transport checksum through its pseudo header: IPv6 headers have none.
    case pseudoHeader
}

package enum MetaKey: UInt32 {
    case protocolNumber = 16  // NFT_META_L4PROTO
    case mark = 3  // NFT_META_MARK, in the host's order
    case output = 5  // NFT_META_OIF, the link's number in the host's order
    case inputName = 6  // NFT_META_IIFNAME
    case outputName = 7  // NFT_META_OIFNAME
}

package enum Comparison: UInt32 {
    case equal = 0
    case notEqual = 1
    case less = 2
}

package enum Verdict: Hashable {
    case accept, drop, leave
    case jump(String)
    case goTo(String)
}
