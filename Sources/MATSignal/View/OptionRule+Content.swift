extension OptionRule {
    /// What is wrong in the value of an option, whose length is right and which begins with a good address if it must.
    func fault(in octets: OctetView, _ range: Range<Int>, _ kind: OptionKind) -> SignalFault? {
        switch content {
        case Self.zeros:
            guard octets.isZero(range) else { return .notZero(kind) }
        case Self.prefix:
            if let fault = octets.prefixFault(at: range.lowerBound, kind) { return fault }
        case Self.wanted:
            let (address, length) = (octets.address(at: range.lowerBound), octets.uint8(at: range.lowerBound &+ 16))
            guard IPPrefix(address, length: length) != nil else { return .badPrefix(kind, address, length: length) }
        case Self.mapping:
            if let fault = MappingRecordView(octets.part(range)).fault { return fault }
        case Self.text:
            guard octets.isText(range) else { return .notText }
        case Self.candidates:
            for place in stride(from: range.lowerBound, to: range.upperBound, by: Candidate.octetsCount) {
                let address = octets.address(at: place)
                guard address.isUsableUnicast else { return .badAddress(kind, address) }
                guard octets.uint8(at: place &+ 19) == 0 else { return .notZero(kind) }
            }
        default:
            break
        }
        guard reservedStart < reservedEnd else { return nil }
        let start = range.lowerBound
        return octets.isZero(start &+ Int(reservedStart)..<start &+ Int(reservedEnd)) ? nil : .notZero(kind)
    }
}

extension OctetView {
    /// Whether the range is UTF-8.
    fileprivate func isText(_ range: Range<Int>) -> Bool {
        (try? UTF8Span(validating: octets(range).assumingMemoryBound(to: UInt8.self).span)) != nil
    }
}

extension OptionTable {
    /// What is wrong in a value that stands alone, as in a store.
    public func fault(of value: OctetView, as kind: OptionKind) -> SignalFault? {
        let rule = rule(kind)
        guard rule.traits.contains(.isKnown), rule.allows(UInt16(clamping: value.count)) else { return .wrongLength(kind, octets: value.count) }
        if rule.content == OptionRule.address, !value.address(at: 0).isUsableUnicast { return .badAddress(kind, value.address(at: 0)) }
        return rule.fault(in: value, 0..<value.count, kind)
    }
}
