import MATCore
import MATSignal

/// The bindings that this node holds at its own servers, so that what they send reaches it through translators and firewalls
/// (protocol.md section 11.3).
///
/// ```
///             the MoA is translated or filtered             Bind Ack, code 0                 refresh due
///   (none) ────────────────────────────────────► binding ──────────────────────► bound ─────────────────► refreshing
///                                                  ▲  │ no answer, refused        ▲ ▲   Bind Ack, code 0     │  │
///                                                  │  ▼                           │ └────────────────────────┘  │ code 2, 9,
///                                          waiting for its next try               │ 500 s after the signature:  │ another MoA
///                                                  ▲                              └── signed again ◄────────────┘
///                                                  └────────────────────────────────────────────── no answer
///   any of these ── needed no more ──► left, if the server holds it ── 5 s, and not needed again ──► the server is told (lifetime 0)
/// ```
/// A binding is of one HoA at one server: an IMS, an own relay, or a peer's relay. It stands while it is needed. What the server sends goes on to
/// come to the MoA of before until it has granted another one; and for a moment after a binding is needed no more, since peers hear of that later.
/// How often it is refreshed, `RefreshPace` finds out.
struct OwnBindings: Sendable {
    struct Key: Hashable, Comparable, Sendable {
        let hoa: HomeAddress
        let server: Endpoint

        static func < (a: Key, b: Key) -> Bool { (a.hoa, a.server) < (b.hoa, b.server) }
    }

    enum Action: Hashable, Sendable {
        /// A Bind with signature is to go from this MoA.
        case bind(Key, from: MobileAddress)
        case refresh(Key, from: MobileAddress)
        case stop(Key)
        /// The server, which has us at this MoA, is to be told that it is over.
        case end(Key, heldFrom: MobileAddress)
        /// It was seen at another endpoint than before: that is a handover.
        case moved(Key, MobileAddress)

        /// It keeps a binding.
        var isInTurn: Bool {
            switch self {
            case .bind, .refresh: true
            case .stop, .end, .moved: false
            }
        }
    }

    private enum State: Sendable {
        /// - Parameter last: where the server saw us before.
        case binding(last: Endpoint?)
        case bound(seen: Endpoint, signedAt: MonotonicTime, next: MonotonicTime)
        case refreshing(seen: Endpoint, signedAt: MonotonicTime)
        case waiting(until: MonotonicTime)
    }

    /// Why a server holds none.
    enum Failure: Hashable, Sendable {
        case silent
        case refused(ResponseCode)
    }

    private struct Binding: Sendable {
        let moa: MobileAddress
        var state = State.binding(last: nil)
        var failures = 0
        /// When the server granted or refreshed it last.
        var heardAt: MonotonicTime?
        /// Where the server has us, as far as is known: it granted a binding from this MoA, and has not said since that it knows it no more.
        var holder: MobileAddress?
        /// It granted one, and has since neither refused one nor been silent.
        var isGranted = false
        /// What the server is to this HoA besides.
        var role: ServerRole = []
        /// What came of the last try, if it failed.
        var failure: Failure?
    }

    /// Targets of an IMS at which a HoA is bound.
    static let targetsMax = 2
    /// Own relays at which a HoA is bound.
    static let relaysMax = 4
    /// Asked for, in seconds.
    static let lifetime: UInt32 = 120
    /// Refreshes that are due so soon go along with one that is due now: a radio wakes once for all of them.
    static let togetherWithin: Duration = .seconds(3)
    /// How long a signature lets a binding be refreshed without another one is 600 s (section 11.3).
    static let signatureMax: Duration = .seconds(500)

    /// Between two refreshes out of turn, if the servers knew of us at the first: twice as long each time, while doubts go on.
    static let doubtPauses: ClosedRange<Duration> = .milliseconds(500) ... .seconds(2)
    /// How long what is needed no more is left as it is: peers' packets come that way until they have heard of a better one.
    static let lingerTime: Duration = .seconds(5)
    /// Such bindings; others end by themselves when their grants are over.
    static let leftMax = 128

    private struct Left: Sendable {
        let holder: MobileAddress
        let until: MonotonicTime
    }

    private var bindings: [Key: Binding] = [:]
    /// Between refreshes from each MoA, less up to a tenth.
    private var paces: [MobileAddress: RefreshPace] = [:]
    private var left: [Key: Left] = [:]
    /// Of the last refresh out of turn that was not called for, or of one that is still to come.
    private var doubtedAt: MonotonicTime?
    private var doubtPause = doubtPauses.lowerBound

    // MARK: Questions

    /// When something is due.
    var due: MonotonicTime? {
        bindings.values.reduce(left.values.reduce(nil) { $0.earlier($1.until) }) { due, binding in
            switch binding.state {
            case .binding, .refreshing: due
            case .bound(_, _, let next): due.earlier(next)
            case .waiting(let until): due.earlier(until)
            }
        }
    }

    /// Whether the server holds one.
    func isBound(_ key: Key) -> Bool {
        switch bindings[key]?.state {
        case .bound, .refreshing: true
        case .binding, .waiting, nil: false
        }
    }

    var count: Int { bindings.count }

    /// The servers at which a HoA is bound, or is to be; in order.
    func servers(of hoa: HomeAddress) -> [Endpoint] { bindings.keys.filter { $0.hoa == hoa }.map(\.server).sorted() }

    /// The own MoA that a binding is, or is to be, held from.
    func source(of key: Key) -> MobileAddress? { bindings[key]?.moa }

    /// The own MoA from which the server takes packets, and to which it sends them; `nil` if it does not, as far as is known.
    func holder(of key: Key) -> MobileAddress? { bindings[key]?.holder }

    /// Whether the server granted one, and has since neither refused one nor been silent: what a record may say. A move changes nothing in that.
    func isGranted(_ key: Key) -> Bool { bindings[key]?.isGranted ?? false }

    /// What the server said last that it is to this HoA.
    func role(of key: Key) -> ServerRole { bindings[key]?.role ?? [] }

    /// The server granted a binding in this role.
    mutating func granted(_ role: ServerRole, _ key: Key) { bindings[key]?.role = role }

    /// Where the server sees us; `nil` without a binding.
    func observed(_ key: Key) -> Endpoint? {
        switch bindings[key]?.state {
        case .bound(let seen, _, _), .refreshing(let seen, _): seen
        case .binding(let last): last
        case .waiting, nil: nil
        }
    }

    /// A server has granted one to this MoA, so that what a translator opened for it stays open.
    func isHeld(from moa: MobileAddress) -> Bool { bindings.values.contains { $0.holder == moa && $0.isGranted } }

    /// Whether nothing comes back to this MoA from any server that it is, or is to be, bound at.
    func areSilent(from moa: MobileAddress) -> Bool {
        let here = bindings.values.filter { $0.moa == moa }
        return !here.isEmpty && here.allSatisfy { $0.failure == .silent }
    }

    /// Why the last try failed; `nil` if it did not, or has not ended.
    func failure(of key: Key) -> Failure? { bindings[key]?.failure }

    // MARK: Events

    /// These bindings are needed now, each from this MoA; others are not.
    mutating func need(_ needed: [Key: MobileAddress], _ now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        for key in bindings.keys.sorted() where needed[key] == nil {
            let holder = bindings.removeValue(forKey: key)?.holder
            if let holder, left.count < Self.leftMax { left[key] = Left(holder: holder, until: now + Self.lingerTime) }
            actions.append(.stop(key))
        }
        for key in needed.keys { left[key] = nil }
        for (key, moa) in needed.sorted(by: { $0.key < $1.key }) where bindings[key]?.moa != moa {
            var binding = Binding(moa: moa)
            if let former = bindings[key] { (binding.holder, binding.isGranted, binding.role) = (former.holder, former.isGranted, former.role) }
            bindings[key] = binding
            actions.append(.bind(key, from: moa))
        }
        let moas = Set(needed.values)
        paces = paces.filter { moas.contains($0.key) }
        return actions
    }

    /// The server granted it, or refreshed it.
    ///
    /// - Parameters:
    ///   - seen: where it sees us.
    ///   - granted: seconds; `nil` or 0: refused.
    mutating func answered(
        _ key: Key, _ code: ResponseCode, seen: Endpoint?, granted: UInt32?, random: inout any RandomNumberGenerator, _ now: MonotonicTime
    ) -> [Action] {
        guard var binding = bindings[key] else { return [] }
        var last: Endpoint?
        var signedAt = now
        var isHeld = false
        switch binding.state {
        case .binding(let endpoint): last = endpoint
        case .waiting: break
        case .bound(let endpoint, let time, _), .refreshing(let endpoint, let time): (last, signedAt, isHeld) = (endpoint, time, true)
        }
        guard code == .ok, let seen, let granted, granted > 0 else {
            // A server that no longer knows the binding gets it anew at once. Whether a doubt was right, only another endpoint tells: of a server with
            // two addresses, the one knows no more what was bound at the other.
            guard isHeld, code == .notFound || code == .cookieRequired else { return fail(key, .refused(code), now) }
            (binding.state, binding.holder) = (.binding(last: last), nil)
            bindings[key] = binding
            return [.bind(key, from: binding.moa)]
        }
        if isHeld, let last { reviewPace(of: binding, last, seen, now) }
        let interval = min(paces[binding.moa]?.interval ?? RefreshPace.longest, .seconds(Int64(granted)) / 3)
        let part = Int64.random(in: 0...100, using: &random)
        let next = now + (interval - interval * part / 1000)
        binding.state = .bound(seen: seen, signedAt: signedAt, next: next)
        (binding.failures, binding.failure, binding.holder, binding.isGranted) = (0, nil, binding.moa, true)
        binding.heardAt = now
        bindings[key] = binding
        guard let last, last != seen else { return [] }
        // The doubt was right. What translates us may change again at any time.
        doubtedAt = nil
        return [.moved(key, binding.moa)]
    }

    /// What a refresh says of the translator: another address is another network's, another port of the same one that it had forgotten us.
    private mutating func reviewPace(of binding: Binding, _ last: Endpoint, _ seen: Endpoint, _ now: MonotonicTime) {
        if last == seen {
            paces[binding.moa]?.kept(now)
        } else if last.address == seen.address, let heardAt = binding.heardAt {
            paces[binding.moa, default: RefreshPace(heardAt)].lost(after: now - heardAt, now)
        }
    }

    /// What was tried from this MoA in vain is tried again at once: it leaves in another way.
    mutating func retry(from moa: MobileAddress, _ now: MonotonicTime) -> [Action] {
        for (key, binding) in bindings where binding.moa == moa {
            if case .waiting = binding.state { bindings[key]?.state = .waiting(until: now) }
        }
        return takeDue(now)
    }

    /// The server answered no try.
    mutating func silent(_ key: Key, _ now: MonotonicTime) -> [Action] { fail(key, .silent, now) }

    private mutating func fail(_ key: Key, _ failure: Failure, _ now: MonotonicTime) -> [Action] {
        guard var binding = bindings[key] else { return [] }
        (binding.failure, binding.holder, binding.isGranted) = (failure, nil, false)
        binding.state = .waiting(until: now + .seconds(Int64(min(30, 1 << min(binding.failures, 5)))))
        binding.failures += 1
        bindings[key] = binding
        return []
    }

    /// The node ends: no server is to keep sending to it.
    mutating func leaveAll() -> [Action] {
        var held = left.mapValues(\.holder)
        for (key, binding) in bindings { if let holder = binding.holder { held[key] = holder } }
        (bindings, left) = ([:], [:])
        return held.sorted { $0.key < $1.key }.map { .end($0.key, heldFrom: $0.value) }
    }

    /// What came by this server has stopped coming: it is asked at once whether it still knows us.
    mutating func doubt(_ key: Key, _ now: MonotonicTime) -> [Action] {
        guard case .bound(let seen, let signedAt, _) = bindings[key]?.state else { return [] }
        bindings[key]?.state = .bound(seen: seen, signedAt: signedAt, next: now)
        return takeDue(now)
    }

    /// Something else shows that the servers may not know where we are: they are told at once, or after a pause if that was done a moment ago in
    /// vain. What has changed since then would not be seen before the next refresh in turn.
    mutating func doubt(_ now: MonotonicTime) -> [Action] {
        guard doubtedAt.map({ $0 <= now }) ?? true else { return [] }
        var time = now
        if let last = doubtedAt, now - last < Self.doubtPauses.upperBound {
            time = max(now, last + doubtPause)
            doubtPause = min(doubtPause * 2, Self.doubtPauses.upperBound)
        } else {
            doubtPause = Self.doubtPauses.lowerBound
        }
        doubtedAt = time
        for key in bindings.keys.sorted() {
            if case .bound(let seen, let signedAt, let next) = bindings[key]?.state {
                bindings[key]?.state = .bound(seen: seen, signedAt: signedAt, next: min(next, time))
            }
        }
        return takeDue(now)
    }

    mutating func takeDue(_ now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        for (key, one) in left.sorted(by: { $0.key < $1.key }) where one.until <= now {
            left[key] = nil
            actions.append(.end(key, heldFrom: one.holder))
        }
        let isOneDue = bindings.values.contains { if case .bound(_, _, let next) = $0.state { next <= now } else { false } }
        let dueUntil = isOneDue ? now + Self.togetherWithin : now
        for key in bindings.keys.sorted() {
            guard let binding = bindings[key] else { continue }
            switch binding.state {
            case .binding, .refreshing: break
            case .waiting(let until) where until <= now:
                bindings[key]?.state = .binding(last: nil)
                actions.append(.bind(key, from: binding.moa))
            case .bound(let seen, let signedAt, let next) where next <= dueUntil:
                if now - signedAt >= Self.signatureMax {
                    bindings[key]?.state = .binding(last: seen)
                    actions.append(.bind(key, from: binding.moa))
                } else {
                    bindings[key]?.state = .refreshing(seen: seen, signedAt: signedAt)
                    actions.append(.refresh(key, from: binding.moa))
                }
            case .waiting, .bound: break
            }
        }
        return actions
    }
}

extension OwnBindings.Failure {
    /// As people read it.
    var text: String {
        switch self {
        case .silent: "it does not answer"
        case .refused(.notAuthoritative): "it serves other home addresses only (code 4)"
        case .refused(.authenticationFailed): "it does not believe the certificate (code 1)"
        case .refused(.tryLater): "it takes no more, or is being stopped (code 7)"
        case .refused(let code): "it refuses: \(code)"
        }
    }
}
