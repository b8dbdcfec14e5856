import MATSignal

/// A policy routing rule that another program made, as far as it matters to ours: whether it takes packets that ours should see.
struct ForeignRule: Hashable {
    var isIPv4: Bool
    var priority: UInt32
    var table: UInt32
    var action: UInt8
    /// It concerns only packets that something singles out: a mark, a user, a port, an address, a link.
    var isNarrow: Bool
    /// The selectors, as a person reads them in `ip rule`.
    var text: String

    /// Reads RTM_NEWRULE. `fib_rule_hdr`: family, destination length, source length, TOS, table, 0, 0, action: an octet each; flags 4.
    /// - Returns: `nil` for rules of ours.
    static func decode(_ incoming: NetlinkIncoming) -> ForeignRule? {
        let header = incoming.payload
        guard header.count >= KernelRoute.headerBytes, header[0] == KernelValues.familyIPv4 || header[0] == KernelValues.familyIPv6 else { return nil }
        let isInverted = header.loadUnaligned(fromByteOffset: 8, as: UInt32.self) & KernelValues.ruleInverted != 0
        var rule = ForeignRule(
            isIPv4: header[0] == KernelValues.familyIPv4, priority: 0, table: UInt32(header[4]), action: header[7], isNarrow: false, text: "")
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

    private var verb: String {
        switch action {
        case KernelValues.ruleActionGoto: "goto"
        case KernelValues.ruleActionBlackhole: "blackhole"
        case KernelValues.ruleActionUnreachable: "unreachable"
        case KernelValues.ruleActionProhibit: "prohibit"
        default: table == KernelValues.tableMain ? "lookup main" : "lookup \(table)"
        }
    }

    private var isLocal: Bool { action == KernelValues.ruleActionTable && table == KernelValues.tableLocal }

    /// Whether packets that are ours to route end here.
    var takesEverything: Bool {
        !isNarrow && !isLocal
            && [KernelValues.ruleActionTable, KernelValues.ruleActionGoto, KernelValues.ruleActionBlackhole, KernelValues.ruleActionUnreachable, KernelValues.ruleActionProhibit]
                .contains(action)
    }

    /// Somebody wants nothing to leave but what has passed before: not for us to go around.
    var forbids: Bool {
        [KernelValues.ruleActionBlackhole, KernelValues.ruleActionUnreachable, KernelValues.ruleActionProhibit].contains(action)
    }

    /// After what our rules must stand at all events: own addresses are local.
    var isLocalTable: Bool { isLocal && !isNarrow }
}

/// Where our rules stand among others'.
///
/// A program that adds a rule without a priority gets a place before every rule but the first, and so before ours if it comes later:
/// `wg-quick` does so with two rules that take everything. It wants to come before the main table, not before us: had it come first, ours
/// would stand before its. So ours do in either case. Mapped packets and signalling then leave by the links they name, and
/// all else goes on to that program's rules: plain traffic is what a full tunnel is for.
public struct RulePlace: Hashable, Sendable {
    /// The first of `width` priorities of ours.
    public var base: UInt32
    /// Rules that would take what is ours, and now come after ours.
    public var passed: [String] = []
    /// Those that come before ours all the same, because there is no room, or it is not for us to go around them.
    public var before: [String] = []

    static let width: UInt32 = 16

    init(base: UInt32) { self.base = base }

    /// - Parameter keepsFirst: whether other programs' rules are stepped over at all.
    init(standard: UInt32, among rules: [ForeignRule], keepsFirst: Bool) {
        base = standard
        let inTheWay = rules.filter { $0.takesEverything && $0.priority < standard &+ Self.width }
        guard !inTheWay.isEmpty else { return }
        func texts(_ rules: [ForeignRule]) -> [String] {
            // Most programs make the same rules for both families.
            Set(rules.map { PrioritisedText(priority: $0.priority, text: $0.text) }).sorted().map(\.text)
        }
        let local = rules.filter(\.isLocalTable).map(\.priority).max() ?? 0
        let passable = inTheWay.filter { !$0.forbids }
        // Only rules that stand after what we must not pass count: between two there is nothing to win.
        let barrier = max(local, inTheWay.filter(\.forbids).map(\.priority).max() ?? 0)
        let able = passable.filter { $0.priority > barrier &+ Self.width }
        if keepsFirst, let lowest = able.map(\.priority).min() {
            base = min(standard, lowest - Self.width)
        }
        passed = texts(inTheWay.filter { $0.priority >= base })
        before = texts(inTheWay.filter { $0.priority < base })
    }

    private struct PrioritisedText: Hashable, Comparable {
        var priority: UInt32
        var text: String
        static func < (a: PrioritisedText, b: PrioritisedText) -> Bool { (a.priority, a.text) < (b.priority, b.text) }
    }
}
