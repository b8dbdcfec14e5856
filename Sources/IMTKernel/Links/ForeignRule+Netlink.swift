import IMTPlan

extension ForeignRule {
    /// Reads RTM_NEWRULE. `fib_rule_hdr`: family, destination length, source length, TOS, table, 0, 0, action: an octet each; flags 4.
    /// - Returns: `nil` for rules of ours.
    static func decode(_ incoming: NetlinkIncoming) -> ForeignRule? {
        let header = incoming.payload
        guard header.count >= KernelRoute.headerBytes, let family = KernelValues.addressFamily(header[0]) else { return nil }
        let isInverted = header.loadUnaligned(fromByteOffset: 8, as: UInt32.self) & KernelValues.ruleInverted != 0
        var rule = ForeignRule(
            family: family, priority: 0, table: UInt32(header[4]), action: header[7], isNarrow: false, text: "")
        var selects = header[1] > 0 || header[2] > 0 || header[3] > 0
        var words: [String] = []
        var suppress = ""
        for attribute in incoming.attributes(after: KernelRoute.headerBytes) {
            switch attribute.type {
            case KernelValues.ruleProtocol where attribute.u8 == KernelValues.protocolMAT: return nil
            case KernelValues.rulePriority: rule.priority = attribute.u32 ?? 0
            case KernelValues.ruleTable: rule.table = attribute.u32 ?? rule.table
            case KernelValues.ruleMark:
                guard let mark = attribute.u32, mark != 0 else { continue }
                selects = true
                words.append("fwmark \(mark)")
            case KernelValues.ruleInputName:
                // Every packet of a local socket comes "from lo".
                if attribute.string != "lo" { selects = true }
                words.append("iif \(attribute.string)")
            case KernelValues.ruleMasterDevice: if attribute.u8 ?? 0 != 0 { selects = true }
            case KernelValues.ruleOutputName, KernelValues.ruleUsers, KernelValues.ruleTransport, KernelValues.ruleSourcePorts,
                KernelValues.ruleDestinationPorts, KernelValues.ruleTunnel:
                selects = true
            case KernelValues.ruleSuppressLength:
                guard let length = attribute.u32, length != .max else { continue }
                suppress = " suppress_prefixlength \(length)"
            default: break
            }
        }
        rule.isNarrow = selects && !isInverted
        let selectors = words.isEmpty ? (selects ? "from some" : "from all") : words.joined(separator: " ")
        rule.text = "\(rule.priority): \(isInverted ? "not " : "")\(selectors) \(rule.verb)\(suppress)"
        return rule
    }
}
