import IMS
import MATSignal

/// At which other instances nodes are bound, as etcd's log tells (protocol.md section 11.3): who has no binding of a node hands what the node is
/// to be told to one that has.
///
/// ```
///   written: instance, until ──► known ── the key is gone, or that time is over ──► (nothing)
///                                  ▲ └─ another instance's: the later one counts ─┐
///                                  └──────────────────────────────────────────────┘
/// ```
/// It is a hint: an instance that was handed something and has no binding any more tells the node where its last update came from.
struct ClusterBindings: Sendable {
    private struct Place: Sendable {
        var instance: InstanceID
        var until: MonotonicTime
    }

    private let own: InstanceID
    private var places: [IPPrefix: Place] = [:]

    /// HoAs of which it is known where they are bound.
    static let entriesMax = 1 << 20

    init(own: InstanceID) { self.own = own }

    var count: Int { places.count }

    /// An instance has bound the HoA.
    mutating func bound(_ prefix: IPPrefix, at instance: InstanceID, lasts: Duration, _ now: MonotonicTime) {
        guard instance != own, lasts > .zero, places[prefix] != nil || places.count < Self.entriesMax else { return }
        places[prefix] = Place(instance: instance, until: now + lasts)
    }

    /// Its key is gone.
    mutating func unbound(_ prefix: IPPrefix, at instance: InstanceID) {
        if places[prefix]?.instance == instance { places[prefix] = nil }
    }

    /// The instance that has the HoA's binding, if it lives.
    func instance(of prefix: IPPrefix, _ living: LivingInstances, _ now: MonotonicTime) -> InstanceID? {
        guard let place = places[prefix], place.until > now, living.all.contains(place.instance) else { return nil }
        return place.instance
    }

    /// All is read anew, so what is not told again is gone.
    mutating func beginReading() { places = [:] }
}
