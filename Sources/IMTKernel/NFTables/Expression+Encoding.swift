import CNetfilter
import IMTPlan

/// A libnftnl expression with one owner, until a rule or set takes it.
struct NFTExpression: ~Copyable {
    private let pointer: OpaquePointer

    init?(_ name: String) {
        guard let pointer = nftnl_expr_alloc(name) else { return nil }
        self.pointer = pointer
    }

    deinit { nftnl_expr_free(pointer) }

    func set(_ attribute: some BinaryInteger, u16 value: UInt16) { nftnl_expr_set_u16(pointer, UInt16(attribute), value) }
    func set(_ attribute: some BinaryInteger, u32 value: UInt32) { nftnl_expr_set_u32(pointer, UInt16(attribute), value) }
    func set(_ attribute: some BinaryInteger, u64 value: UInt64) { nftnl_expr_set_u64(pointer, UInt16(attribute), value) }
    func set(_ attribute: some BinaryInteger, string: String) { nftnl_expr_set_str(pointer, UInt16(attribute), string) }
    func set(_ attribute: some BinaryInteger, octets: [UInt8]) {
        _ = octets.withUnsafeBytes { nftnl_expr_set(pointer, UInt16(attribute), $0.baseAddress, UInt32($0.count)) }
    }

    /// Gives the pointer away, to a rule or set that frees it.
    consuming func release() -> OpaquePointer {
        let released = pointer
        discard self
        return released
    }
}

extension Expression {
    /// The libnftnl object for this step; `nil` only when memory is out.
    func makeNFTExpression() -> NFTExpression? {
        guard let made = NFTExpression(kernelName) else { return nil }
        configure(made)
        return made
    }

    private var kernelName: String {
        switch self {
        case .load, .write: "payload"
        case .lookup, .absent: "lookup"
        case .meta, .setMeta: "meta"
        case .compare: "cmp"
        case .mask: "bitwise"
        case .update: "dynset"
        case .socketIsWildcard, .socketIsTransparent: "socket"
        case .addressType: "fib"
        case .limit: "limit"
        case .log: "log"
        case .noTracking: "notrack"
        case .willBeEncrypted: "rt"
        case .masquerade: "masq"
        case .counter: "counter"
        case .verdict, .immediate: "immediate"
        }
    }

    private func configure(_ made: borrowing NFTExpression) {
        switch self {
        case .load(let field, let register):
            made.set(NFTNL_EXPR_PAYLOAD_DREG, u32: register.number)
            Self.set(field, on: made)
        case .write(let field, let register, let checksum):
            made.set(NFTNL_EXPR_PAYLOAD_SREG, u32: register.number)
            Self.set(field, on: made)
            Self.set(checksum, on: made)
        case .lookup(let name, let key, let target):
            made.set(NFTNL_EXPR_LOOKUP_SREG, u32: key.number)
            made.set(NFTNL_EXPR_LOOKUP_SET, string: name)
            if let target { made.set(NFTNL_EXPR_LOOKUP_DREG, u32: target.number) }
        case .absent(let name, let key):
            made.set(NFTNL_EXPR_LOOKUP_SREG, u32: key.number)
            made.set(NFTNL_EXPR_LOOKUP_SET, string: name)
            made.set(NFTNL_EXPR_LOOKUP_FLAGS, u32: 1)  // NFT_LOOKUP_F_INV
        case .meta(let key, let register):
            made.set(NFTNL_EXPR_META_KEY, u32: key.rawValue)
            made.set(NFTNL_EXPR_META_DREG, u32: register.number)
        case .setMeta(let key, let register):
            made.set(NFTNL_EXPR_META_KEY, u32: key.rawValue)
            made.set(NFTNL_EXPR_META_SREG, u32: register.number)
        case .compare(let register, let comparison, let value):
            made.set(NFTNL_EXPR_CMP_SREG, u32: register.number)
            made.set(NFTNL_EXPR_CMP_OP, u32: comparison.rawValue)
            made.set(NFTNL_EXPR_CMP_DATA, octets: value)
        case .mask(let register, let mask, let turning):
            made.set(NFTNL_EXPR_BITWISE_SREG, u32: register.number)
            made.set(NFTNL_EXPR_BITWISE_DREG, u32: register.number)
            made.set(NFTNL_EXPR_BITWISE_LEN, u32: UInt32(mask.count))
            made.set(NFTNL_EXPR_BITWISE_MASK, octets: mask)
            made.set(NFTNL_EXPR_BITWISE_XOR, octets: turning.isEmpty ? [UInt8](repeating: 0, count: mask.count) : turning)
        case .update(let change, let name, let identifier, let key, let data, let timeout):
            made.set(NFTNL_EXPR_DYNSET_SREG_KEY, u32: key.number)
            if let data { made.set(NFTNL_EXPR_DYNSET_SREG_DATA, u32: data.number) }
            made.set(NFTNL_EXPR_DYNSET_OP, u32: change.rawValue)
            if change != .remove { made.set(NFTNL_EXPR_DYNSET_TIMEOUT, u64: timeout) }
            made.set(NFTNL_EXPR_DYNSET_SET_NAME, string: name)
            made.set(NFTNL_EXPR_DYNSET_SET_ID, u32: identifier)
        case .socketIsWildcard(let register):
            made.set(NFTNL_EXPR_SOCKET_KEY, u32: 2)  // NFT_SOCKET_WILDCARD
            made.set(NFTNL_EXPR_SOCKET_DREG, u32: register.number)
        case .socketIsTransparent(let register):
            made.set(NFTNL_EXPR_SOCKET_KEY, u32: 0)  // NFT_SOCKET_TRANSPARENT
            made.set(NFTNL_EXPR_SOCKET_DREG, u32: register.number)
        case .addressType(let end, let register):
            made.set(NFTNL_EXPR_FIB_RESULT, u32: 3)  // NFT_FIB_RESULT_ADDRTYPE
            made.set(NFTNL_EXPR_FIB_FLAGS, u32: end.rawValue)
            made.set(NFTNL_EXPR_FIB_DREG, u32: register.number)
        case .limit(let rate, let burst):
            made.set(NFTNL_EXPR_LIMIT_RATE, u64: rate)
            made.set(NFTNL_EXPR_LIMIT_UNIT, u64: 1)  // per second
            made.set(NFTNL_EXPR_LIMIT_BURST, u32: burst)
            made.set(NFTNL_EXPR_LIMIT_TYPE, u32: 0)  // NFT_LIMIT_PKTS
        case .log(let group, let prefix):
            made.set(NFTNL_EXPR_LOG_GROUP, u16: group)
            made.set(NFTNL_EXPR_LOG_PREFIX, string: prefix)
            made.set(NFTNL_EXPR_LOG_SNAPLEN, u32: 0xFFFF)
            made.set(NFTNL_EXPR_LOG_QTHRESHOLD, u16: 1)
        case .willBeEncrypted(let register):
            made.set(NFTNL_EXPR_RT_KEY, u32: 4)  // NFT_RT_XFRM
            made.set(NFTNL_EXPR_RT_DREG, u32: register.number)
        case .noTracking, .masquerade, .counter:
            break
        case .immediate(let octets, let register):
            made.set(NFTNL_EXPR_IMM_DREG, u32: register.number)
            made.set(NFTNL_EXPR_IMM_DATA, octets: octets)
        case .verdict(let verdict):
            made.set(NFTNL_EXPR_IMM_DREG, u32: 0)  // NFT_REG_VERDICT
            switch verdict {
            case .drop: made.set(NFTNL_EXPR_IMM_VERDICT, u32: 0)
            case .accept: made.set(NFTNL_EXPR_IMM_VERDICT, u32: 1)
            case .leave: made.set(NFTNL_EXPR_IMM_VERDICT, u32: UInt32(bitPattern: -5))  // NFT_RETURN
            case .jump(let chain):
                made.set(NFTNL_EXPR_IMM_VERDICT, u32: UInt32(bitPattern: -3))
                made.set(NFTNL_EXPR_IMM_CHAIN, string: chain)
            case .goTo(let chain):
                made.set(NFTNL_EXPR_IMM_VERDICT, u32: UInt32(bitPattern: -4))
                made.set(NFTNL_EXPR_IMM_CHAIN, string: chain)
            }
        }
    }

    private static func set(_ field: HeaderField, on made: borrowing NFTExpression) {
        made.set(NFTNL_EXPR_PAYLOAD_BASE, u32: field.base.rawValue)
        made.set(NFTNL_EXPR_PAYLOAD_OFFSET, u32: field.offset)
        made.set(NFTNL_EXPR_PAYLOAD_LEN, u32: field.length)
    }

    private static func set(_ checksum: ChecksumRepair, on made: borrowing NFTExpression) {
        // NFT_PAYLOAD_CSUM_NONE 0, _INET 1; NFT_PAYLOAD_L4CSUM_PSEUDOHDR 1.
        switch checksum {
        case .none:
            made.set(NFTNL_EXPR_PAYLOAD_CSUM_TYPE, u32: 0)
        case .internet(let offset, let pseudoHeader):
            made.set(NFTNL_EXPR_PAYLOAD_CSUM_TYPE, u32: 1)
            made.set(NFTNL_EXPR_PAYLOAD_CSUM_OFFSET, u32: offset)
            if pseudoHeader { made.set(NFTNL_EXPR_PAYLOAD_FLAGS, u32: 1) }
        case .pseudoHeader:
            made.set(NFTNL_EXPR_PAYLOAD_CSUM_TYPE, u32: 0)
            made.set(NFTNL_EXPR_PAYLOAD_FLAGS, u32: 1)
        }
    }
}
