import CNetfilter
import Glibc
import IMTPlan

/// A transaction under construction: the kernel applies all of it or nothing.
///
/// Only the sealed one can be sent, and it alone knows which messages expect an answer.
package struct NFTBatch: ~Copyable {
    /// Octets of elements put in one message; the list's attribute length is 16 bits wide.
    static let elementListBytesMax = 32 * 1024

    private var writer: NetlinkWriter
    private var labels: [Label] = []

    /// What a message does, for the error that names it. Kept small: a batch may have thousands.
    struct Label {
        var sequence: UInt32
        var verb: StaticString
        var table: String
        var object: String
        var count: Int
    }

    package init(firstSequence: UInt32) {
        writer = NetlinkWriter(firstSequence: firstSequence)
        appendBoundary(16)  // NFNL_MSG_BATCH_BEGIN
    }

    var isEmpty: Bool { labels.isEmpty }

    /// Appends what a plan says, step by step.
    package mutating func append(_ change: TableChange) {
        for step in change.steps {
            switch step {
            case .addTable: add(table: change.table)
            case .deleteTable: delete(table: change.table)
            case .addSet(let set): add(set: set, to: change.table)
            case .deleteSet(let set): delete(set: set, of: change.table)
            case .addChain(let chain): add(chain: chain, to: change.table)
            case .deleteChain(let name): delete(chain: name, of: change.table)
            case .addRule(let rule, let chain): add(rule: rule, to: chain, of: change.table)
            case .deleteRules(let chain): deleteRules(of: chain, in: change.table)
            case .addElements(let elements, let set): add(elements, to: set, of: change.table)
            case .deleteElements(let elements, let set): delete(elements, from: set, of: change.table)
            }
        }
    }

    package mutating func add(table: TableDefinition) {
        append(KernelValues.nftNewTable, KernelValues.flagCreate, table, "create", "") { message in
            if let object = NFTTable(table.name, family: table.nfProtocol, flags: table.flags) {
                nftnl_table_nlmsg_build_payload(message, object.pointer)
            }
        }
    }

    package mutating func delete(table: TableDefinition) {
        append(KernelValues.nftDeleteTable, 0, table, "delete", "") { message in
            if let object = NFTTable(table.name, family: table.nfProtocol) {
                nftnl_table_nlmsg_build_payload(message, object.pointer)
            }
        }
    }

    package mutating func add(set: SetDefinition, to table: TableDefinition) {
        append(KernelValues.nftNewSet, KernelValues.flagCreate, table, "create", set.name) { message in
            if let object = NFTSet(set, table: table.name, family: table.nfProtocol) {
                nftnl_set_nlmsg_build_payload(message, object.pointer)
            }
        }
    }

    package mutating func delete(set: SetDefinition, of table: TableDefinition) {
        append(KernelValues.nftDeleteSet, 0, table, "delete", set.name) { message in
            if let object = NFTSet(set, table: table.name, family: table.nfProtocol) {
                nftnl_set_nlmsg_build_payload(message, object.pointer)
            }
        }
    }

    package mutating func add(chain: ChainDefinition, to table: TableDefinition) {
        append(KernelValues.nftNewChain, KernelValues.flagCreate, table, "create chain", chain.name) { message in
            if let object = NFTChain(chain, table: table.name, family: table.nfProtocol) {
                nftnl_chain_nlmsg_build_payload(message, object.pointer)
            }
        }
    }

    /// Its rules must have gone, and those that jump to it.
    package mutating func delete(chain: String, of table: TableDefinition) {
        append(KernelValues.nftDeleteChain, 0, table, "delete chain", chain) { message in
            let definition = ChainDefinition(name: chain, hook: nil, rules: [])
            if let object = NFTChain(definition, table: table.name, family: table.nfProtocol) {
                nftnl_chain_nlmsg_build_payload(message, object.pointer)
            }
        }
    }

    package mutating func add(rule: [Expression], to chain: String, of table: TableDefinition) {
        append(KernelValues.nftNewRule, KernelValues.flagCreate | 0x800, table, "add rule to", chain) { message in
            if let object = NFTRule(rule, chain: chain, table: table.name, family: table.nfProtocol) {
                nftnl_rule_nlmsg_build_payload(message, object.pointer)
            }
        }
    }

    mutating func deleteRules(of chain: String, in table: TableDefinition) {
        append(KernelValues.nftDeleteRule, 0, table, "clear chain", chain) { message in
            if let object = NFTRule([], chain: chain, table: table.name, family: table.nfProtocol) {
                nftnl_rule_nlmsg_build_payload(message, object.pointer)
            }
        }
    }

    package mutating func add(_ elements: [SetElement], to set: String, of table: TableDefinition) {
        appendElements(KernelValues.nftNewElement, KernelValues.flagCreate, "add to", elements, set, table)
    }

    package mutating func delete(_ elements: [SetElement], from set: String, of table: TableDefinition) {
        appendElements(KernelValues.nftDeleteElement, 0, "delete from", elements.map { SetElement(key: $0.key) }, set, table)
    }

    private mutating func appendElements(
        _ type: UInt16, _ flags: UInt16, _ verb: StaticString, _ elements: [SetElement], _ set: String, _ table: TableDefinition
    ) {
        var rest = elements[...]
        while let first = rest.first {
            // List item, key and data with their value attributes: at most five headers of four octets.
            // The time-out takes twelve more.
            let each = first.key.count + first.data.count + 36
            let part = rest.prefix(max(1, Self.elementListBytesMax / each))
            rest = rest.dropFirst(part.count)
            append(type, flags, table, verb, set, count: part.count, bytesMax: part.count * each + 1024) { message in
                message.putElements(part, set: set, table: table.name)
            }
        }
    }

    private mutating func append(
        _ type: UInt16, _ flags: UInt16, _ table: TableDefinition, _ verb: StaticString, _ object: String, count: Int = 1,
        bytesMax: Int = NetlinkWriter.messageBytesMax, _ body: (NetlinkMessage) -> Void
    ) {
        let sequence = writer.append(
            type: KernelValues.subsystemTables | type, flags: flags | KernelValues.flagAck, bytesMax: bytesMax
        ) { message in
            message.putHeader([table.nfProtocol, 0, 0, 0])  // nfgenmsg: family, version, resource
            body(message)
        }
        labels.append(Label(sequence: sequence, verb: verb, table: table.title, object: object, count: count))
    }

    private mutating func appendBoundary(_ type: UInt16) {
        // Its resource id, in network order, names the subsystem.
        writer.append(type: type, flags: 0) { $0.putHeader([0, 0, 0, 10]) }
    }

    package consuming func seal() -> SealedBatch {
        appendBoundary(17)  // NFNL_MSG_BATCH_END
        return SealedBatch(writer: writer, labels: labels)
    }
}

package struct SealedBatch: ~Copyable {
    fileprivate let writer: NetlinkWriter
    fileprivate let labels: [NFTBatch.Label]

    package var bytes: [UInt8] { Array(writer.bytes) }
    /// Objects and elements, as an estimate of the events that the kernel would make.
    var eventsCount: Int { labels.reduce(0) { $0 + $1.count } }

    /// Applies the transaction.
    /// - Throws: the first refusal, in terms of what was asked for. Nothing is applied then.
    package func commit(on socket: NetlinkSocket, operation: String) throws(KernelError) {
        guard !labels.isEmpty else { return }
        let answers = try socket.exchange(writer, operation: operation)
        if let refusal = answers.first(where: { $0.errno != 0 }) {
            let label = labels.first { $0.sequence == refusal.sequence }
            throw KernelError(
                KernelError.code(of: refusal.errno), operation: operation,
                object: label.map(Self.describe) ?? "the whole transaction",
                errno: refusal.errno, sequence: refusal.sequence, kernelMessage: refusal.message)
        }
        guard answers.count >= labels.count else {
            throw KernelError(
                .garbled, operation: operation, object: "\(answers.count) acknowledgements for \(labels.count) messages")
        }
    }

    private static func describe(_ label: NFTBatch.Label) -> String {
        let count = label.count > 1 ? "\(label.count) elements " : ""
        return "\(label.table): \(count)\(label.verb)\(label.object.isEmpty ? "" : " \(label.object)")"
    }
}

extension UnsafeMutablePointer where Pointee == nlmsghdr {
    /// NFTA_SET_ELEM_LIST_*: table, set, then a list of elements { key { value }, data { value } }.
    func putElements(_ elements: some Sequence<SetElement>, set: String, table: String) {
        put(KernelValues.elementListTable, string: table)
        put(KernelValues.elementListSet, string: set)
        putNested(KernelValues.elementListElements) {
            for element in elements {
                putNested(KernelValues.listElement) {
                    putNested(KernelValues.elementKey) { put(KernelValues.dataValue, octets: element.key) }
                    if !element.data.isEmpty {
                        putNested(KernelValues.elementData) { put(KernelValues.dataValue, octets: element.data) }
                    }
                    if let timeout = element.timeoutMilliseconds {
                        put(KernelValues.elementTimeout, octets: (0..<8).map { UInt8(truncatingIfNeeded: timeout >> (56 - 8 * $0)) })
                    }
                }
            }
        }
    }
}
