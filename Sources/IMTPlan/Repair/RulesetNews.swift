import MATSignal

/// What nftables' events say about where to look.
struct RulesetNews: NetlinkNews {
    /// An element that another program put into one of our sets, or took out.
    struct Element: Hashable {
        var isIPv4: Bool
        var set: String
        var key: [UInt8]
    }

    /// More elements than this, and the sets are read as a whole.
    static let elementsMax = 1024

    /// A table, chain or set of ours appeared, changed or went.
    var structure = false
    var rules = false
    var elements: Set<Element> = []
    /// Tables or chains of others did.
    var others = false
    var lost = false
    /// Of the last foreign transaction heard of.
    var generation: UInt32?

    /// A generation's number alone is no reason to look anywhere.
    var isEmpty: Bool { !concernsUs && !others }
    var concernsUs: Bool { structure || rules || !elements.isEmpty || lost }

    mutating func note(_ event: NetlinkIncoming) {
        guard event.type & 0xFF00 == KernelValues.subsystemTables, let family = event.payload.first else { return }
        let kind = event.type & 0xFF
        let attributes = event.attributes(after: 4)
        if kind == KernelValues.nftNewGeneration {
            generation = attributes.first(KernelValues.generationNumber)?.u32BigEndian ?? generation
            return
        }
        // The table's name is the first attribute of every kind.
        let isOurs = (family == KernelValues.familyIPv4 || family == KernelValues.familyIPv6)
            && attributes.first(KernelValues.elementListTable)?.string == TranslationRuleset.tableName
        switch kind {
        case KernelValues.nftNewTable, KernelValues.nftDeleteTable, KernelValues.nftNewChain, KernelValues.nftDeleteChain:
            if isOurs { structure = true } else { others = true }
        case KernelValues.nftNewSet, KernelValues.nftDeleteSet: if isOurs { structure = true }
        case KernelValues.nftNewRule, KernelValues.nftDeleteRule: if isOurs { rules = true }
        case KernelValues.nftNewElement, KernelValues.nftDeleteElement:
            guard isOurs, !lost, let set = attributes.first(KernelValues.elementListSet)?.string, TranslationRuleset.isDecided(set) else { return }
            for element in KernelElement.decodeList(event) {
                guard elements.count < Self.elementsMax else {
                    lost = true
                    return
                }
                elements.insert(Element(isIPv4: family == KernelValues.familyIPv4, set: set, key: element.key))
            }
        default: break
        }
    }

    mutating func noteLoss() { lost = true }

    mutating func add(_ more: RulesetNews) {
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
