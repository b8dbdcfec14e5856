/// One message of a transaction that changes a table, as a value. `NFTBatch` (IMTKernel) makes octets of it.
package enum TableStep: Hashable {
    case addTable
    case deleteTable
    case addSet(SetDefinition)
    /// The elements of a set that goes need no deletion of their own.
    case deleteSet(SetDefinition)
    case addChain(ChainDefinition)
    /// Its rules must have gone, and those that jump to it.
    case deleteChain(String)
    case addRule([Expression], to: String)
    case deleteRules(of: String)
    case addElements([SetElement], to: String)
    case deleteElements([SetElement], from: String)
}

/// What a transaction does to one table.
package struct TableChange {
    /// Which table; of its definition, name, family and flags count.
    package var table: TableDefinition
    package var steps: [TableStep] = []

    package init(_ table: TableDefinition, _ steps: [TableStep] = []) {
        self.table = table
        self.steps = steps
    }

    /// A chain's rules are made anew: in one transaction no packet sees it without.
    mutating func replaceRules(of chain: ChainDefinition) {
        steps.append(.deleteRules(of: chain.name))
        addRules(of: chain)
    }

    mutating func addRules(of chain: ChainDefinition) { steps += chain.rules.map { .addRule($0, to: chain.name) } }

    /// All removals come before all additions, since an element may move from one path's map to another's.
    mutating func apply(_ sets: [SetDifference]) {
        for set in sets where !set.removed.isEmpty { steps.append(.deleteElements(set.removed, from: set.set)) }
        for set in sets where !set.added.isEmpty { steps.append(.addElements(set.added, to: set.set)) }
    }
}
