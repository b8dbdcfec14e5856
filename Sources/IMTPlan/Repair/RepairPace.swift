import MATSignal

/// How often something of ours may be put back. A person who flushes a ruleset has it back at once; a program that removes it every
/// time it comes back would be in a fight with us that costs both sides all their time, so that one is answered ever later.
package struct RepairPace {

    package init() {}
    /// Repairs made without delay.
    package static let promptMax = 6
    package static let delayMax: Duration = .seconds(60)
    /// After this long without a repair all is forgotten.
    package static let quiet: Duration = .seconds(120)

    private var count = 0
    private var last: MonotonicTime?

    /// When the next repair may be made; `now` if at once.
    package mutating func next(_ now: MonotonicTime) -> MonotonicTime {
        guard let last else { return now }
        if now - last >= Self.quiet { count = 0 }
        guard count >= Self.promptMax else { return now }
        let delay = min(Self.delayMax, .seconds(1 << min(count - Self.promptMax, 6)))
        return max(now, last + delay)
    }

    package mutating func made(_ now: MonotonicTime) {
        count += 1
        last = now
    }
}
