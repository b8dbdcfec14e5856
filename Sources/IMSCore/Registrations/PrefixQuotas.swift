import MATCore
import MATSignal

/// How many mappings each served prefix has, and how many updates it may send: so that one customer's nodes can't use up what is
/// meant for all.
///
/// Counted by served prefix, of which there are few. A place is reserved when the write of a new HoA begins, so that writes in flight
/// can't exceed the quota together.
struct PrefixQuotas: Sendable {
    private struct Use: Sendable {
        var mappings = 0
        var reserved = 0
        var rate: RateLimit
    }

    private var uses: [IPPrefix: Use] = [:]

    /// Mappings held of the served prefix.
    func count(of served: IPPrefix) -> Int { uses[served]?.mappings ?? 0 }

    /// Starts again with these prefixes: counts come anew by `added`, rates are full.
    mutating func reset(_ served: [ServedPrefix]) {
        let reserved = uses.mapValues(\.reserved)
        uses = [:]
        for prefix in served {
            uses[prefix.prefix] = Use(reserved: reserved[prefix.prefix] ?? 0, rate: RateLimit(perSecond: prefix.updatesPerSecond))
        }
    }

    /// Why an update is refused.
    struct Refusal: Sendable {
        var code: ResponseCode
        var reason: String
        var lifetime: UInt32?
    }

    /// - Parameter isNew: whether its HoA needs a place that it does not have yet.
    func refusal(_ served: ServedPrefix, isNew: Bool, _ now: MonotonicTime) -> Refusal? {
        if isNew, !hasRoom(served) {
            return Refusal(
                code: .refused, reason: "the quota of \(served.mappingsMax ?? 0) mappings of \(served.prefix) is used up")
        }
        if !allowsUpdate(served, now) {
            return Refusal(
                code: .tryLater, reason: "more than \(served.updatesPerSecond) updates of \(served.prefix) in a second",
                lifetime: 1)
        }
        return nil
    }

    private func hasRoom(_ served: ServedPrefix) -> Bool {
        guard let most = served.mappingsMax, let use = uses[served.prefix] else { return true }
        return use.mappings + use.reserved < most
    }

    private func allowsUpdate(_ served: ServedPrefix, _ now: MonotonicTime) -> Bool {
        guard var rate = uses[served.prefix]?.rate else { return true }
        return rate.take(at: now)
    }

    mutating func takeUpdate(_ served: ServedPrefix, _ now: MonotonicTime) { _ = uses[served.prefix]?.rate.take(at: now) }

    mutating func reserve(_ served: IPPrefix) { uses[served]?.reserved += 1 }

    mutating func release(_ served: IPPrefix) {
        guard let reserved = uses[served]?.reserved, reserved > 0 else { return }
        uses[served]?.reserved = reserved - 1
    }

    /// A mapping of an HoA that had none is held from now on.
    mutating func added(_ prefix: IPPrefix, _ configuration: IMSCoreConfiguration) {
        if let served = configuration.served(covering: prefix) { uses[served.prefix]?.mappings += 1 }
    }
}
