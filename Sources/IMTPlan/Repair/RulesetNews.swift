import MATSignal

/// What nftables' events say about where to look.
package struct RulesetNews {
    /// An element that another program put into one of our sets, or took out.
    package struct Element: Hashable {
        package var family: AddressFamily
        package var set: String
        package var key: [UInt8]

        package init(family: AddressFamily, set: String, key: [UInt8]) {
            self.family = family
            self.set = set
            self.key = key
        }
    }

    /// More elements than this, and the sets are read as a whole.
    package static let elementsMax = 1024

    /// A table, chain or set of ours appeared, changed or went.
    package var structure = false
    package var rules = false
    package var elements: Set<Element> = []
    /// Tables or chains of others did.
    package var others = false
    package var lost = false
    /// Of the last foreign transaction heard of.
    package var generation: UInt32?

    package init() {}

    /// A generation's number alone is no reason to look anywhere.
    package var isEmpty: Bool { !concernsUs && !others }
    package var concernsUs: Bool { structure || rules || !elements.isEmpty || lost }

    package mutating func addLoss() { lost = true }

    package mutating func add(_ more: RulesetNews) {
        structure = structure || more.structure
        rules = rules || more.rules
        others = others || more.others
        lost = lost || more.lost
        generation = more.generation ?? generation
        elements.formUnion(more.elements)
        if elements.count > Self.elementsMax {
            lost = true
            elements = []
        }
    }
}
