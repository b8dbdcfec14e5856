import MATSignal

/// A policy routing rule that another program made, as far as it matters to ours: whether it takes packets that ours should see.
package struct ForeignRule: Hashable {
    package var family: AddressFamily
    package var priority: UInt32
    package var table: UInt32
    package var action: UInt8
    /// It concerns only packets that something singles out: a mark, a user, a port, an address, a link.
    package var isNarrow: Bool
    /// The selectors, as a person reads them in `ip rule`.
    package var text: String

    package init(family: AddressFamily, priority: UInt32, table: UInt32, action: UInt8, isNarrow: Bool, text: String) {
        self.family = family
        self.priority = priority
        self.table = table
        self.action = action
        self.isNarrow = isNarrow
        self.text = text
    }

    /// What it does with a packet, as `ip rule` says it.
    package var verb: String {
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
    package var takesEverything: Bool {
        !isNarrow && !isLocal
            && [
                KernelValues.ruleActionTable, KernelValues.ruleActionGoto, KernelValues.ruleActionBlackhole, KernelValues.ruleActionUnreachable,
                KernelValues.ruleActionProhibit,
            ]
            .contains(action)
    }

    /// Somebody wants nothing to leave but what has passed before: not for us to go around.
    package var forbids: Bool {
        [KernelValues.ruleActionBlackhole, KernelValues.ruleActionUnreachable, KernelValues.ruleActionProhibit].contains(action)
    }

    /// After what our rules must stand at all events: own addresses are local.
    package var isLocalTable: Bool { isLocal && !isNarrow }
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

    package static let width: UInt32 = 16

    package init(base: UInt32) { self.base = base }

    /// - Parameter keepsFirst: whether other programs' rules are stepped over at all.
    package init(standard: UInt32, among rules: [ForeignRule], keepsFirst: Bool) {
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

extension RulePlace: CustomStringConvertible {
    public var description: String {
        if !before.isEmpty {
            return "routing rules of another program come before this agent's and take its packets (\(before.joined(separator: "; "))): "
                + "registration and connections with peers may fail; give that program's rules a priority above \(base + Self.width), or see routing-rules in matd.yaml"
        }
        if !passed.isEmpty {
            return
                "routing rules of another program take all traffic (\(passed.joined(separator: "; "))): this agent's come before them now, from \(base) on, so that "
                + "connections with peers and signalling go on over the links themselves and all else goes that program's way; see routing-rules in matd.yaml"
        }
        return "no other program's routing rules are in the way any more; this agent's begin at \(base) again"
    }
}
