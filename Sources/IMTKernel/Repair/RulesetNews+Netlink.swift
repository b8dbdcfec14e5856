import IMTPlan
import MATSignal

extension RulesetNews: NetlinkNews {
    mutating func add(_ event: NetlinkIncoming) {
        guard event.type & 0xFF00 == KernelValues.subsystemTables, let family = event.payload.first else { return }
        let kind = event.type & 0xFF
        let attributes = event.attributes(after: 4)
        if kind == KernelValues.nftNewGeneration {
            generation = attributes.first(KernelValues.generationNumber)?.u32BigEndian ?? generation
            return
        }
        // The table's name is the first attribute of every kind.
        let isOurs =
            (family == KernelValues.familyIPv4 || family == KernelValues.familyIPv6)
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
                elements.insert(Element(family: family == KernelValues.familyIPv4 ? .ipv4 : .ipv6, set: set, key: element.key))
            }
        default: break
        }
    }
}
