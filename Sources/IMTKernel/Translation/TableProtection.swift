import Glibc
import IMTPlan
import MATSignal

/// How far the kernel keeps our tables from others.
///
/// With a flushed ruleset (`nft flush ruleset`, which restarting Debian's nftables service does) packets of peers meet the stack as they
/// are on the wire, and it resets their connections: no repair is fast enough. A table with an owner can't be changed by
/// others, and a flush passes it over. Alone that flag would be worse than none, since such a table goes with its owner, however that
/// ends; with `persist` the kernel keeps it, and the next agent takes it over.
enum TableProtection: Sendable {
    /// Others may change the tables, which is found and put back.
    case none
    /// NFT_TABLE_F_OWNER 2 (Linux 5.12) and NFT_TABLE_F_PERSIST 4 (6.9).
    case owned

    var flags: UInt32 { self == .owned ? 6 : 0 }
}

extension TranslationTables {
    private static let trialName = "mat_trial"

    /// Finds out what this kernel can do. Each trial is one transaction that ends as it began.
    func askKernel() throws(KernelError) {
        if configuration.protectsTables {
            protection = try works(flags: TableProtection.owned.flags, []) ? .owned : .none
        }
        needs.asksRouting = try works(flags: 0, [.addressType(of: .destination, into: Register(0))])
    }

    private func works(flags: UInt32, _ rule: [Expression]) throws(KernelError) -> Bool {
        for family in AddressFamily.allCases {
            var table = TableDefinition(family: family, name: Self.trialName, sets: [], chains: [])
            table.flags = flags
            let chain = ChainDefinition(name: "trial", hook: .init(type: "filter", number: 0, priority: -310), rules: [])
            var batch = NFTBatch(firstSequence: nextSequence)
            batch.add(table: table)
            if !rule.isEmpty {
                batch.add(chain: chain, to: table)
                batch.add(rule: rule, to: chain.name, of: table)
            }
            batch.delete(table: table)
            do throws(KernelError) {
                try batch.seal().commit(on: socket, operation: "find out what nftables can do here")
            } catch {
                // A flag that is unknown (EOPNOTSUPP, on the oldest EINVAL), an expression that is not built (ENOENT).
                guard [EOPNOTSUPP, EINVAL, ENOENT].contains(error.errno) else { throw error }
                return false
            }
        }
        return true
    }
}
