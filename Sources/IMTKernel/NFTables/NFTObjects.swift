import CNetfilter
import IMTPlan

/// libnftnl's table, chain, set and rule objects, each freed by exactly one owner.
struct NFTTable: ~Copyable {
    let pointer: OpaquePointer

    init?(_ name: String, family: UInt8, flags: UInt32 = 0) {
        guard let pointer = nftnl_table_alloc() else { return nil }
        self.pointer = pointer
        if flags != 0 { nftnl_table_set_u32(pointer, UInt16(NFTNL_TABLE_FLAGS.rawValue), flags) }
        nftnl_table_set_str(pointer, UInt16(NFTNL_TABLE_NAME.rawValue), name)
        nftnl_table_set_u32(pointer, UInt16(NFTNL_TABLE_FAMILY.rawValue), UInt32(family))
    }

    deinit { nftnl_table_free(pointer) }
}

struct NFTChain: ~Copyable {
    let pointer: OpaquePointer

    init?(_ chain: ChainDefinition, table: String, family: UInt8) {
        guard let pointer = nftnl_chain_alloc() else { return nil }
        self.pointer = pointer
        nftnl_chain_set_str(pointer, UInt16(NFTNL_CHAIN_TABLE.rawValue), table)
        nftnl_chain_set_str(pointer, UInt16(NFTNL_CHAIN_NAME.rawValue), chain.name)
        nftnl_chain_set_u32(pointer, UInt16(NFTNL_CHAIN_FAMILY.rawValue), UInt32(family))
        if let hook = chain.hook {
            nftnl_chain_set_str(pointer, UInt16(NFTNL_CHAIN_TYPE.rawValue), hook.type)
            nftnl_chain_set_u32(pointer, UInt16(NFTNL_CHAIN_HOOKNUM.rawValue), hook.number)
            nftnl_chain_set_s32(pointer, UInt16(NFTNL_CHAIN_PRIO.rawValue), hook.priority)
            nftnl_chain_set_u32(pointer, UInt16(NFTNL_CHAIN_POLICY.rawValue), 1)  // NF_ACCEPT
        }
    }

    deinit { nftnl_chain_free(pointer) }
}

struct NFTSet: ~Copyable {
    let pointer: OpaquePointer

    init?(_ set: SetDefinition, table: String, family: UInt8) {
        guard let pointer = nftnl_set_alloc() else { return nil }
        self.pointer = pointer
        nftnl_set_set_str(pointer, UInt16(NFTNL_SET_TABLE.rawValue), table)
        nftnl_set_set_str(pointer, UInt16(NFTNL_SET_NAME.rawValue), set.name)
        nftnl_set_set_u32(pointer, UInt16(NFTNL_SET_FAMILY.rawValue), UInt32(family))
        nftnl_set_set_u32(pointer, UInt16(NFTNL_SET_ID.rawValue), set.identifier)
        nftnl_set_set_u32(pointer, UInt16(NFTNL_SET_FLAGS.rawValue), set.flags)
        nftnl_set_set_u32(pointer, UInt16(NFTNL_SET_KEY_TYPE.rawValue), set.keyType)
        nftnl_set_set_u32(pointer, UInt16(NFTNL_SET_KEY_LEN.rawValue), set.keyBytes)
        nftnl_set_set_u32(pointer, UInt16(NFTNL_SET_DESC_SIZE.rawValue), set.size)
        if set.dataBytes > 0 {
            nftnl_set_set_u32(pointer, UInt16(NFTNL_SET_DATA_TYPE.rawValue), set.dataType)
            nftnl_set_set_u32(pointer, UInt16(NFTNL_SET_DATA_LEN.rawValue), set.dataBytes)
        }
        if set.counts, let counter = Expression.counter.makeNFTExpression() { nftnl_set_add_expr(pointer, counter.release()) }
    }

    deinit { nftnl_set_free(pointer) }
}

struct NFTRule: ~Copyable {
    let pointer: OpaquePointer

    /// - Parameter expressions: none for "all rules of the chain", in a deletion.
    init?(_ expressions: [Expression], chain: String, table: String, family: UInt8) {
        guard let pointer = nftnl_rule_alloc() else { return nil }
        self.pointer = pointer
        nftnl_rule_set_str(pointer, UInt16(NFTNL_RULE_TABLE.rawValue), table)
        nftnl_rule_set_str(pointer, UInt16(NFTNL_RULE_CHAIN.rawValue), chain)
        nftnl_rule_set_u32(pointer, UInt16(NFTNL_RULE_FAMILY.rawValue), UInt32(family))
        for expression in expressions {
            if let made = expression.makeNFTExpression() { nftnl_rule_add_expr(pointer, made.release()) }
        }
    }

    deinit { nftnl_rule_free(pointer) }
}
