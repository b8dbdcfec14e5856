import MATCore
import MATSignal

// Where the kernel forwards by itself it has to know who is bound where, and tells what it has forwarded. It decides as `forward` does, and
// leaves to that what needs a queue or another family.

extension RelayCore {
    /// From now on changes are told, beginning with all that there is.
    public mutating func kernelForwards(now: Now) -> [RelayAction] {
        kernel = KernelShare()
        // What of a rate was not used has been used there.
        traffic.shortenBursts()
        for slot in 0..<bindings.slotsCount { enterKernel(slot, now.monotonic) }
        return takeActions()
    }

    /// The kernel does not forward any more.
    public mutating func kernelEnded() {
        kernel = nil
        traffic.reconfigure(configuration.limits)
    }

    mutating func enterKernel(_ slot: Int, _ now: MonotonicTime) {
        guard kernel != nil, let binding = bindings.binding(in: slot, now) else { return }
        let resident = configuration.resident(binding.prefix)
        append(
            .kernel(
                .enter(
                    KernelBinding(
                        slot: slot, prefix: binding.prefix, endpoint: binding.endpoint, local: binding.local, previous: binding.previous?.endpoint,
                        previousUntil: binding.previous?.acceptedUntil ?? .zero, until: binding.until, isResident: resident != nil,
                        refusesVisitors: resident?.refusesVisitors ?? false, octetsOfMonth: traffic.octetsOfMonth(in: slot)))))
        if kernel?.barred.contains(slot) ?? false { append(.kernel(.bar(slot: slot, true))) }
    }

    mutating func extendInKernel(_ prefix: IPPrefix, until: MonotonicTime, _ now: MonotonicTime) {
        guard kernel != nil, let slot = bindings.slot(of: prefix, now) else { return }
        append(.kernel(.extend(slot: slot, until: until)))
    }

    mutating func leaveKernel(_ slot: Int, _ prefix: IPPrefix) {
        guard kernel != nil else { return }
        kernel?.barred.remove(slot)
        append(.kernel(.leave(slot: slot, prefix)))
    }

    /// The kernel has forwarded this.
    public mutating func forwardedByKernel(_ counts: [KernelCount]) -> [RelayAction] {
        for count in counts {
            counters.packetsForwarded &+= count.packetsSent
            counters.octetsForwarded &+= count.octetsSent
            counters.kernelPackets &+= count.packetsSent
            counters.kernelOctets &+= count.octetsSent
            traffic.count(count.octetsSent &+ count.octetsReceived, in: count.slot)
            bar(count.slot)
        }
        return takeActions()
    }

    /// Beyond its month's octets a HoA's packets are the agent's, which drops and counts them.
    private mutating func bar(_ slot: Int) {
        guard let kernel, traffic.isExhausted(slot) != kernel.barred.contains(slot) else { return }
        if kernel.barred.contains(slot) { self.kernel?.barred.remove(slot) } else { self.kernel?.barred.insert(slot) }
        append(.kernel(.bar(slot: slot, !kernel.barred.contains(slot))))
    }

    /// A new month, or another quota.
    mutating func barAnew() {
        guard let kernel else { return }
        for slot in kernel.barred.sorted() { bar(slot) }
    }
}

extension RelayCore {
    /// The kernel had forwarded this when a binding ended, beyond what it told before.
    public mutating func forwardedByKernel(_ octets: UInt64, of prefix: IPPrefix, now: MonotonicTime) {
        if let slot = bindings.slot(of: prefix, now) { traffic.count(octets, in: slot) } else { traffic.count(octets, away: prefix) }
    }
}

/// The rates as the kernel has them.
public struct KernelRates: Hashable, Sendable {
    public struct Rate: Hashable, Sendable {
        /// What an octet takes, 2^-20 ns.
        public var cost: UInt64
        /// Nanoseconds.
        public var burst: UInt64
    }

    public var home: Rate
    public var visitors: Rate
    public var relay: Rate

    init(home: Rate, visitors: Rate, relay: Rate) {
        self.home = home
        self.visitors = visitors
        self.relay = relay
    }

    public init(_ limits: RelayLimits) { self = Traffic(limits).kernelRates }
}

/// What the kernel was told that is not seen from the bindings.
struct KernelShare: Sendable {
    /// Slots whose HoAs have used their month.
    var barred: Set<Int> = []
}
