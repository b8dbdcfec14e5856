import MATSignal

/// What a table consists of, as values. `NFTBatch` (IMTKernel) turns them into messages.
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
    package static let timedFlag: UInt32 = 0x10
    /// Without the table of its greatest size, which a set that only the agent changes has from the start.
    package static let growingFlag: UInt32 = 0x20
    package static let growingMapFlags: UInt32 = 0x28
    package static let dynamicFlags: UInt32 = 0x30
    package static let dynamicMapFlags: UInt32 = 0x38
}

package struct TableDefinition: Hashable {
    package var family: AddressFamily
    package var name: String
    package var sets: [SetDefinition]
    package var chains: [ChainDefinition]
    /// NFT_TABLE_F_*: see `TableProtection`.
    package var flags: UInt32 = 0
    /// NFPROTO_IPV4 2, NFPROTO_IPV6 10: the same numbers as the address families. NFPROTO_NETDEV 5 in an experiment.
    package var nfProtocol: UInt8

    package init(family: AddressFamily, name: String, sets: [SetDefinition], chains: [ChainDefinition]) {
        self.family = family
        self.name = name
        self.sets = sets
        self.chains = chains
        nfProtocol = KernelValues.family(family)
    }

    package var title: String { "table \(family == .ipv4 ? "ip" : "ip6") \(name)" }
}

/// One element of a set (no data) or map, in packet octets.
package struct SetElement: Hashable {
    package var key: [UInt8]
    package var data: [UInt8]
    /// In a set with time-outs; `nil` for ever.
    package var timeoutMilliseconds: UInt64?

    package init(key: [UInt8], data: [UInt8] = [], timeoutMilliseconds: UInt64? = nil) {
        self.key = key
        self.data = data
        self.timeoutMilliseconds = timeoutMilliseconds
    }
}
