import CNetfilter

/// What a table consists of, as values. `NFTBatch` turns them into messages.
package struct ChainDefinition: Hashable {
    /// Where a chain hangs; `nil` for one that is only jumped to.
    package struct Hook: Hashable {
        /// "filter" or "nat".
        package var type: String
        /// NF_INET_PRE_ROUTING 0, LOCAL_OUT 3, POST_ROUTING 4.
        package var number: UInt32
        package var priority: Int32

        package init(type: String, number: UInt32, priority: Int32) {
            self.type = type
            self.number = number
            self.priority = priority
        }
    }

    package var name: String
    package var hook: Hook?
    package var rules: [[Expression]]

    package init(name: String, hook: Hook?, rules: [[Expression]]) {
        self.name = name
        self.hook = hook
        self.rules = rules
    }
}

package struct SetDefinition: Hashable {
    package var name: String
    /// NFT_SET_* flags: MAP 0x8, TIMEOUT 0x10, EVAL 0x20.
    package var flags: UInt32
    package var identifier: UInt32
    /// nft's numbers of data types, six bits each for a concatenation. The kernel ignores them; `nft list` needs the right ones.
    package var keyType: UInt32
    package var keyBytes: UInt32
    package var dataType: UInt32 = 0
    package var dataBytes: UInt32 = 0
    /// The most elements. A set that says so gets its hash table at once, which loads up to 2.5 times as fast.
    package var size: UInt32
    /// Counts packets and octets per element.
    package var counts = false

    package init(
        name: String, flags: UInt32, identifier: UInt32, keyType: UInt32, keyBytes: UInt32, dataType: UInt32 = 0,
        dataBytes: UInt32 = 0, size: UInt32, counts: Bool = false
    ) {
        self.name = name
        self.flags = flags
        self.identifier = identifier
        self.keyType = keyType
        self.keyBytes = keyBytes
        self.dataType = dataType
        self.dataBytes = dataBytes
        self.size = size
        self.counts = counts
    }

    package static let mapFlag: UInt32 = 0x8
    static let timedFlag: UInt32 = 0x10
    static let dynamicFlags: UInt32 = 0x30
    static let dynamicMapFlags: UInt32 = 0x38
}

package struct TableDefinition: Hashable {
    package var isIPv4: Bool
    package var name: String
    package var sets: [SetDefinition]
    package var chains: [ChainDefinition]
    /// NFT_TABLE_F_*: see `TableProtection`.
    var flags: UInt32 = 0
    /// NFPROTO_IPV4 2, NFPROTO_IPV6 10: the same numbers as the address families. NFPROTO_NETDEV 5 in an experiment.
    package var family: UInt8

    package init(isIPv4: Bool, name: String, sets: [SetDefinition], chains: [ChainDefinition]) {
        self.isIPv4 = isIPv4
        self.name = name
        self.sets = sets
        self.chains = chains
        family = KernelValues.family(isIPv4: isIPv4)
    }

    var title: String { "table \(isIPv4 ? "ip" : "ip6") \(name)" }
}

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
