import Glibc
import IMTPlan

/// An element as the kernel has it.
struct KernelElement {
    var key: [UInt8]
    var data: [UInt8]
    var packets: UInt64 = 0
    var octets: UInt64 = 0
}

/// Where an element stands.
struct ElementPlace {
    var table: TableDefinition
    var set: String
    var key: [UInt8]
}

extension NetlinkSocket {
    /// Whether the table exists.
    func exists(_ table: TableDefinition) throws(KernelError) -> Bool {
        var found = false
        try dump(
            type: KernelValues.subsystemTables | KernelValues.nftGetTable, operation: "list tables",
            header: [table.nfProtocol, 0, 0, 0], restart: { found = false }
        ) { incoming in
            if incoming.attributes(after: 4).first(1)?.string == table.name { found = true }
        }
        return found
    }

    /// All elements of a set; none if the set does not exist.
    func elements(of set: String, in table: TableDefinition) throws(KernelError) -> [KernelElement] {
        var result: [KernelElement] = []
        try dump(
            type: KernelValues.subsystemTables | KernelValues.nftGetElement, operation: "read \(table.title), \(set)",
            header: [table.nfProtocol, 0, 0, 0],
            attributes: { message in
                message.put(KernelValues.elementListTable, string: table.name)
                message.put(KernelValues.elementListSet, string: set)
            },
            restart: { result = [] }
        ) { result += KernelElement.decodeList($0) }
        return result
    }

    /// The given elements only, as far as they exist.
    func elements(_ wanted: [SetElement], of set: String, in table: TableDefinition) throws(KernelError) -> [KernelElement] {
        try elements(wanted.map { ElementPlace(table: table, set: set, key: $0.key) }, operation: "read \(table.title), \(set)").map(\.element)
    }

    /// Elements of any sets, as far as they exist, each with the index of its place. All are asked for at once, without acknowledgements: the
    /// kernel has answered by the time it has taken the request.
    func elements(_ places: [ElementPlace], operation: String) throws(KernelError) -> [(index: Int, element: KernelElement)] {
        var result: [(index: Int, element: KernelElement)] = []
        guard !places.isEmpty else { return result }
        var request = writer()
        let first = request.firstSequence
        for place in places {
            request.append(type: KernelValues.subsystemTables | KernelValues.nftGetElement, flags: 0) { message in
                message.putHeader([place.table.nfProtocol, 0, 0, 0])
                message.putElements([SetElement(key: place.key)], set: place.set, table: place.table.name)
            }
        }
        _ = try exchange(request, operation: operation) { incoming in
            for element in KernelElement.decodeList(incoming) { result.append((Int(incoming.sequence &- first), element)) }
        }
        return result
    }
}

extension KernelElement {
    /// Reads the NFTA_SET_ELEM_LIST of one message; skips what it does not understand.
    static func decodeList(_ incoming: NetlinkIncoming) -> [KernelElement] {
        guard let list = incoming.attributes(after: 4).first(KernelValues.elementListElements) else { return [] }
        return list.nested.compactMap { decode($0.nested) }
    }

    private static func decode(_ attributes: NetlinkAttributes) -> KernelElement? {
        guard let key = attributes.first(KernelValues.elementKey)?.nested.first(KernelValues.dataValue)?.octets else {
            return nil
        }
        let data = attributes.first(KernelValues.elementData)?.nested.first(KernelValues.dataValue)?.octets
        var element = KernelElement(key: key, data: data ?? [])
        if let expression = attributes.first(KernelValues.elementExpression)?.nested,
            expression.first(KernelValues.expressionName)?.string == "counter",
            let counts = expression.first(KernelValues.expressionData)?.nested
        {
            element.packets = counts.first(KernelValues.counterPackets)?.u64BigEndian ?? 0
            element.octets = counts.first(KernelValues.counterOctets)?.u64BigEndian ?? 0
        }
        return element
    }
}
