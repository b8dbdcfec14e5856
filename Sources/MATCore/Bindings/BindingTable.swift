import MATSignal

/// The bindings that a server (IMS or relay) holds, one for each HoA (protocol.md section 11.3).
///
/// ```
///              Bind                                   Bind with a newer cookie: from another endpoint, the one before
///   (unknown) ──────► bound ◄───────────────────────┐ is accepted from for 30 s
///       ▲               │ │    refresh, for 600 s   │
///       │               │ └─── after the last Bind ─┘
///       │               │ LIFETIME 0, or the grant is over
///       │               ▼                                        Bind
///       └────────── remembered: only the time of its cookie ─────────► bound
///          600 s
/// ```
/// A Bind is signed over a cookie that was made for the endpoint that it comes from, so it can't be pointed elsewhere; but whoever saw it can
/// send it again while the cookie is good. So a Bind with an older cookie than the last one's is refused, and the last one's time is remembered
/// for as long as an older cookie could be shown, even when the binding has ended. LIFETIME is not signed: so what ends a binding needs a newer
/// cookie than what made it, and what repeats a cookie starts no new 600 s.
///
/// Who is sure of the cookie, the certificate and the signature asks here last. `mayBind` tells beforehand whether the signature is worth a check.
///
/// A full table refuses new bindings and never drops those in use. Entries stand in slots that stay the same as long as the HoA is known, so that
/// others can keep what they know of a binding beside it. Looking up allocates nothing: a relay does it twice a packet.
package struct BindingTable: Sendable {
    /// A Bind whose cookie is valid. What it asks for and under what.
    package struct Request: Hashable, Sendable {
        /// Of the certificate.
        package var prefix: IPPrefix
        package var holder: Binding.Holder
        /// The source of the datagram.
        package var endpoint: Endpoint
        /// The own address and port that it came to.
        package var local: Endpoint
        package var cookieTime: UInt32
        package var clientCookie: UInt64
        /// What LIFETIME says, if it is there.
        package var seconds: UInt32?
        /// When the certificate ends, Unix time in ms.
        package var certificateNotAfter: UInt64

        package init(
            prefix: IPPrefix, holder: Binding.Holder = .resident, endpoint: Endpoint, local: Endpoint, cookieTime: UInt32, clientCookie: UInt64,
            seconds: UInt32? = nil, certificateNotAfter: UInt64
        ) {
            self.prefix = prefix
            self.holder = holder
            self.endpoint = endpoint
            self.local = local
            self.cookieTime = cookieTime
            self.clientCookie = clientCookie
            self.seconds = seconds
            self.certificateNotAfter = certificateNotAfter
        }
    }

    package enum Refusal: Error, Hashable, Sendable, CaseIterable {
        /// The cookie is older than that of the last Bind, or that Bind is shown again: code 9.
        case olderCookie
        case certificateEnded
        /// There are as many bindings as the server holds, or of visitors, or of visitors that one IMS key certified: code 7.
        case full
        case fullOfVisitors
        case fullOfIssuer
    }

    package enum OnBind: Hashable, Sendable {
        /// - Parameter movedFrom: the endpoint of before, if it is another.
        case bound(Binding, slot: Int, isNew: Bool, movedFrom: Endpoint?)
        /// LIFETIME 0.
        ///
        /// - Parameter binding: the one that has ended, if there was one.
        case ended(Binding?, slot: Int?)
        case refused(Refusal)
    }

    private enum Phase: Hashable, Sendable {
        case free
        case bound
        case remembered(until: MonotonicTime)
    }

    private struct Entry: Sendable {
        var binding: Binding
        var phase: Phase
    }

    private var limits: BindingLimits
    private var entries: ContiguousArray<Entry> = []
    private var freeSlots: [UInt32] = []
    private var byPrefix = SlotIndex()
    /// By `binding.endpoint` and by `binding.previous`, if there is one.
    private var byEndpoint = SlotIndex()
    private var lengths = PrefixLengths()
    /// How many are bound at an address.
    private var atAddress: [IPAddress: Int] = [:]
    private var byIssuer: [UInt64: Int] = [:]
    /// Bound ones, with those whose grant has ended since the last sweep.
    package private(set) var count = 0
    package private(set) var visitorsCount = 0
    private var rememberedCount = 0
    private var hand = 0

    /// Entries looked at to find room when the table is full.
    private static let stepsToRoomMax = 64

    package init(_ limits: BindingLimits) { self.limits = limits }

    /// Other bounds from now on. What is bound stays bound.
    package mutating func reconfigure(_ limits: BindingLimits) { self.limits = limits }

    // MARK: Looking up

    /// Slots are below this.
    package var slotsCount: Int { entries.count }

    /// The binding in this slot, if its grant is not over.
    package func binding(in slot: Int, _ now: MonotonicTime) -> Binding? {
        guard entries.indices.contains(slot), entries[slot].phase == .bound, now < entries[slot].binding.until else { return nil }
        return entries[slot].binding
    }

    /// The slot of the binding whose HoA or home prefix is exactly this.
    package func slot(of prefix: IPPrefix, _ now: MonotonicTime) -> Int? {
        guard let slot = place(of: prefix), isBound(slot, now) else { return nil }
        return slot
    }

    package func binding(of prefix: IPPrefix, _ now: MonotonicTime) -> Binding? { slot(of: prefix, now).map { entries[$0].binding } }

    /// The slot of the binding whose HoA covers the address: of several the longest prefix's.
    package func slot(covering address: IPAddress, _ now: MonotonicTime) -> Int? {
        for length in lengths.descending {
            if let slot = slot(of: IPPrefix(covering: address, length: length), now) { return slot }
        }
        return nil
    }

    package func binding(covering address: IPAddress, _ now: MonotonicTime) -> Binding? {
        slot(covering: address, now).map { entries[$0].binding }
    }

    /// The slot of the binding whose HoA covers the address and whose node is accepted from this endpoint: of several the longest prefix's.
    package func slot(covering address: IPAddress, acceptedFrom endpoint: Endpoint, _ now: MonotonicTime) -> Int? {
        for length in lengths.descending {
            guard let slot = slot(of: IPPrefix(covering: address, length: length), now) else { continue }
            if entries[slot].binding.accepts(from: endpoint, now) { return slot }
        }
        return nil
    }

    /// Where what is for the binding in this slot goes, and from where. The slot is one of a binding that was just looked up.
    package func way(in slot: Int) -> (endpoint: Endpoint, local: Endpoint) {
        (entries[slot].binding.endpoint, entries[slot].binding.local)
    }

    /// Whether any node is accepted from this endpoint.
    package func isBound(_ endpoint: Endpoint, _ now: MonotonicTime) -> Bool {
        byEndpoint.first(hash: SlotIndex.hash(endpoint)) { isBound(Int($0), now) && entries[Int($0)].binding.accepts(from: endpoint, now) } != nil
    }

    /// The bindings whose nodes are accepted from this endpoint, in the order of their HoAs.
    package func bindings(acceptedFrom endpoint: Endpoint, _ now: MonotonicTime) -> [Binding] {
        var slots: Set<UInt32> = []
        _ = byEndpoint.first(hash: SlotIndex.hash(endpoint)) { slot in
            if isBound(Int(slot), now), entries[Int(slot)].binding.accepts(from: endpoint, now) { slots.insert(slot) }
            return false
        }
        return slots.map { entries[Int($0)].binding }.sorted { $0.prefix < $1.prefix }
    }

    /// How many HoAs are bound at the address. A source with several has tenfold budgets (sections 6 and 11.5).
    package func boundCount(at address: IPAddress) -> Int { atAddress[address] ?? 0 }

    /// All bindings, in the order of their HoAs.
    package func all(_ now: MonotonicTime) -> [Binding] {
        entries.indices.compactMap { binding(in: $0, now) }.sorted { $0.prefix < $1.prefix }
    }

    private func isBound(_ slot: Int, _ now: MonotonicTime) -> Bool { entries[slot].phase == .bound && now < entries[slot].binding.until }

    private func place(of prefix: IPPrefix) -> Int? {
        byPrefix.first(hash: SlotIndex.hash(prefix)) { entries[Int($0)].binding.prefix == prefix }.map(Int.init)
    }

    // MARK: Bind

    /// Whether the Bind would be granted if its signature is good.
    package mutating func mayBind(_ request: Request, _ now: Now) -> Refusal? {
        let known = place(of: request.prefix)
        if let known, isRepetition(request, of: known, now.monotonic) { return .olderCookie }
        if request.seconds == 0 { return nil }
        if request.certificateNotAfter <= now.wallMilliseconds { return .certificateEnded }
        var held = known.flatMap { entries[$0].phase == .bound ? entries[$0].binding.holder : nil }
        var refusal = refusalForRoom(request.holder, insteadOf: held)
        if refusal != nil {
            // Some that are counted may be over.
            _ = sweep(steps: Self.stepsToRoomMax, now.monotonic)
            held = known.flatMap { entries[$0].phase == .bound ? entries[$0].binding.holder : nil }
            refusal = refusalForRoom(request.holder, insteadOf: held)
        }
        return refusal
    }

    /// A Bind whose certificate and signature are good.
    package mutating func bind(_ request: Request, _ now: Now) -> OnBind {
        if let refusal = mayBind(request, now) { return .refused(refusal) }
        let known = place(of: request.prefix)
        guard request.seconds != 0 else {
            guard let known, let ended = binding(in: known, now.monotonic) else { return .ended(nil, slot: nil) }
            // No Bind of before brings it back.
            entries[known].binding.cookieTime = request.cookieTime
            end(known, now.monotonic)
            return .ended(ended, slot: known)
        }
        let before = known.flatMap { self.binding(in: $0, now.monotonic) }
        let wanted = request.seconds.map { Duration.seconds(Int64($0)) } ?? BindingTimes.lifetimeDefault
        let lifetime = min(max(wanted, BindingTimes.lifetimeMin), BindingTimes.lifetimeMax)
        let certified = Int64(clamping: request.certificateNotAfter - min(request.certificateNotAfter, now.wallMilliseconds))
        var fresh = Binding(
            prefix: request.prefix, holder: request.holder, endpoint: request.endpoint, local: request.local, until: now.monotonic,
            lifetime: lifetime, signedAt: now.monotonic, certifiedUntil: now.monotonic + .milliseconds(certified),
            cookieTime: request.cookieTime, clientCookie: request.clientCookie)
        if let before, before.cookieTime == request.cookieTime { fresh.signedAt = before.signedAt }
        fresh.until = min(now.monotonic + lifetime, fresh.refreshedUntilMax)
        if let before, before.endpoint != request.endpoint {
            fresh.previous = Binding.Previous(endpoint: before.endpoint, acceptedUntil: now.monotonic + BindingTimes.previousMax)
        } else {
            fresh.previous = before?.previous
        }
        let slot = known ?? freeSlot(for: fresh)
        if known != nil { leave(slot) }
        enter(fresh, in: slot)
        let movedFrom = before.flatMap { $0.endpoint == request.endpoint ? nil : $0.endpoint }
        return .bound(fresh, slot: slot, isNew: before == nil, movedFrom: movedFrom)
    }

    /// A Bind without signature, under a valid cookie, for the binding that the node has. It is one only from the endpoint that is bound, to the
    /// server's address that it was bound at, with the same client half of the cookie, and for 600 s after the signature.
    ///
    /// - Returns: `nil` if the node has to bind anew: code 2.
    package mutating func refresh(
        _ hoa: HomeAddress, from endpoint: Endpoint, to local: Endpoint, clientCookie: UInt64, _ now: MonotonicTime
    ) -> Binding? {
        for length in lengths.descending {
            guard let slot = slot(of: IPPrefix(covering: hoa.address, length: length), now) else { continue }
            let binding = entries[slot].binding
            guard binding.hoa == hoa, binding.endpoint == endpoint, binding.local == local, binding.clientCookie == clientCookie else { continue }
            guard now < binding.refreshedUntilMax else { return nil }
            entries[slot].binding.until = min(now + binding.lifetime, binding.refreshedUntilMax)
            return entries[slot].binding
        }
        return nil
    }

    /// Ends a binding for the server's own reasons: its record is gone, or the server is not for the HoA any more.
    ///
    /// - Returns: the binding that was held.
    @discardableResult
    package mutating func end(_ prefix: IPPrefix, _ now: MonotonicTime) -> Binding? {
        guard let slot = slot(of: prefix, now) else { return nil }
        let ended = entries[slot].binding
        end(slot, now)
        return ended
    }

    /// Whether this Bind, or a later one, was accepted before. Cookies tell whole seconds, so one as old as the last one's may come from a node
    /// that moves twice in a second; but not from where it has just been, and it neither ends a binding nor brings one back.
    private func isRepetition(_ request: Request, of slot: Int, _ now: MonotonicTime) -> Bool {
        let binding = entries[slot].binding
        // Serial arithmetic (RFC 1982), as for the cookie's age.
        let later = Int32(truncatingIfNeeded: request.cookieTime &- binding.cookieTime)
        if later != 0 { return later < 0 }
        if request.seconds == 0 || !isBound(slot, now) { return true }
        return binding.endpoint != request.endpoint && binding.previous?.endpoint == request.endpoint
    }

    /// - Parameter held: whose the place is that the HoA has already.
    private func refusalForRoom(_ holder: Binding.Holder, insteadOf held: Binding.Holder?) -> Refusal? {
        if held == holder { return nil }
        if held == nil, count >= limits.bindingsMax { return .full }
        guard case .visitor(let issuer) = holder else { return nil }
        if held == nil || held == .resident, visitorsCount >= limits.visitorsMax { return .fullOfVisitors }
        return (byIssuer[issuer] ?? 0) >= limits.visitorsPerIssuerMax ? .fullOfIssuer : nil
    }

    // MARK: Time

    /// Looks at the next entries and ends what is over. Called now and then, it goes round the whole table in pieces that hold nobody up.
    ///
    /// - Returns: the bindings whose grant is over, with their slots.
    package mutating func sweep(steps: Int, _ now: MonotonicTime) -> [(binding: Binding, slot: Int)] {
        var ended: [(binding: Binding, slot: Int)] = []
        for _ in 0..<min(steps, entries.count) {
            if hand >= entries.count { hand = 0 }
            let entry = entries[hand]
            switch entry.phase {
            case .free: break
            case .bound where now >= entry.binding.until:
                ended.append((entry.binding, hand))
                end(hand, now)
            case .bound:
                // What is not accepted from any more needs not be found.
                if let previous = entry.binding.previous, now >= previous.acceptedUntil + BindingTimes.rememberedMax {
                    byEndpoint.remove(UInt32(hand), hash: SlotIndex.hash(previous.endpoint))
                    entries[hand].binding.previous = nil
                }
            case .remembered(let until):
                if now >= until { forget(hand) }
            }
            hand += 1
        }
        return ended
    }

    // MARK: A restart

    /// What a server writes down, so that its next run has the bindings as well: also what is only remembered, so that nothing can be shown
    /// again to that. In the order of the HoAs.
    package func saved(_ now: Now) -> [SavedBinding] {
        entries.filter { $0.phase != .free }.map { SavedBinding($0.binding, now) }.sorted { $0.prefix < $1.prefix }
    }

    /// Takes back what an earlier run wrote down, before anything else is bound.
    ///
    /// - Parameter holder: on whose account it is held by the configuration of this run.
    /// - Returns: the slot of what is bound; `nil` if it is over, or there is no room.
    package mutating func restore(_ saved: SavedBinding, holder: Binding.Holder, _ now: Now) -> Int? {
        guard place(of: saved.prefix) == nil, refusalForRoom(holder, insteadOf: nil) == nil else { return nil }
        let binding = saved.binding(holder, now)
        let slot = freeSlot(for: binding)
        guard now.monotonic < binding.until else {
            remember(slot, now.monotonic)
            return nil
        }
        enter(binding, in: slot)
        return slot
    }

    // MARK: Slots

    /// A slot for a HoA that has none.
    private mutating func freeSlot(for binding: Binding) -> Int {
        let slot: Int
        if let free = freeSlots.popLast() {
            slot = Int(free)
            entries[slot] = Entry(binding: binding, phase: .free)
        } else {
            slot = entries.count
            entries.append(Entry(binding: binding, phase: .free))
        }
        byPrefix.insert(UInt32(truncatingIfNeeded: slot), hash: SlotIndex.hash(binding.prefix))
        lengths.add(binding.prefix.length)
        return slot
    }

    private mutating func enter(_ binding: Binding, in slot: Int) {
        entries[slot] = Entry(binding: binding, phase: .bound)
        byEndpoint.insert(UInt32(truncatingIfNeeded: slot), hash: SlotIndex.hash(binding.endpoint))
        if let previous = binding.previous { byEndpoint.insert(UInt32(truncatingIfNeeded: slot), hash: SlotIndex.hash(previous.endpoint)) }
        atAddress[binding.endpoint.address, default: 0] += 1
        count += 1
        if case .visitor(let issuer) = binding.holder {
            visitorsCount += 1
            byIssuer[issuer, default: 0] += 1
        }
    }

    /// Takes the entry out of everything but its slot.
    private mutating func leave(_ slot: Int) {
        let entry = entries[slot]
        switch entry.phase {
        case .free: return
        case .remembered: rememberedCount -= 1
        case .bound:
            let binding = entry.binding
            byEndpoint.remove(UInt32(truncatingIfNeeded: slot), hash: SlotIndex.hash(binding.endpoint))
            if let previous = binding.previous { byEndpoint.remove(UInt32(truncatingIfNeeded: slot), hash: SlotIndex.hash(previous.endpoint)) }
            Self.countDown(&atAddress, binding.endpoint.address)
            count -= 1
            if case .visitor(let issuer) = binding.holder {
                visitorsCount -= 1
                Self.countDown(&byIssuer, issuer)
            }
        }
        entries[slot].phase = .free
    }

    private mutating func end(_ slot: Int, _ now: MonotonicTime) {
        leave(slot)
        entries[slot].binding.until = min(entries[slot].binding.until, now)
        // As many again as may be bound: beyond that, what could be shown again is the lesser harm.
        guard rememberedCount < limits.bindingsMax else { return forget(slot) }
        remember(slot, now)
    }

    private mutating func remember(_ slot: Int, _ now: MonotonicTime) {
        entries[slot].phase = .remembered(until: now + BindingTimes.rememberedMax)
        rememberedCount += 1
    }

    private mutating func forget(_ slot: Int) {
        leave(slot)
        let prefix = entries[slot].binding.prefix
        byPrefix.remove(UInt32(truncatingIfNeeded: slot), hash: SlotIndex.hash(prefix))
        lengths.remove(prefix.length)
        freeSlots.append(UInt32(truncatingIfNeeded: slot))
    }

    private static func countDown<Key: Hashable>(_ counts: inout [Key: Int], _ key: Key) {
        guard let count = counts[key] else { return }
        counts[key] = count > 1 ? count - 1 : nil
    }
}
