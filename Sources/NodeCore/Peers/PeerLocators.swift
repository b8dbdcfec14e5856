import MATSignal

/// One of a peer's places: what its record says of it, how far that is believed, and what the kernel has of it. 24 octets.
struct PeerLocator: Hashable, Sendable {
    struct Roles: OptionSet, Hashable, Sendable {
        let rawValue: UInt8
        /// The record in force lists it.
        static let listed = Roles(rawValue: 1)
        /// The record before lists it, while the one in force is provisional.
        static let earlier = Roles(rawValue: 2)
        /// It is found by this address in the table of peers.
        static let claimed = Roles(rawValue: 4)
        /// The kernel takes packets from there as this peer's.
        static let accepted = Roles(rawValue: 8)
        /// The kernel sends this peer's packets there.
        static let target = Roles(rawValue: 16)
        /// An untranslated conversation was known with it when the record came: a notice from there does not count.
        static let guarded = Roles(rawValue: 32)
    }

    private enum Belief: UInt8 {
        case unchecked, checking, noticed, proven, refused
    }

    let moa: MobileAddress
    private var since: CoarseTime
    private var belief = Belief.unchecked
    /// Checks without an answer.
    private var count: UInt8 = 0
    /// Lower is preferred.
    var preference: UInt8
    var roles: Roles

    init(_ moa: MobileAddress, preference: UInt8 = 0, _ roles: Roles) {
        self.moa = moa
        self.preference = preference
        self.roles = roles
        since = CoarseTime(.zero)
    }

    /// How far it is believed; see there.
    var state: LocatorState {
        get {
            switch belief {
            case .unchecked: .unchecked
            case .checking: .checking(until: since.time)
            case .noticed: .noticed(until: since.time)
            case .proven: .proven(at: since.time, unanswered: Int(count))
            case .refused: .refused(until: since.time, checks: Int(count))
            }
        }
        set {
            switch newValue {
            case .unchecked: (belief, count) = (.unchecked, 0)
            case .checking(let until): (belief, since, count) = (.checking, CoarseTime(until), 0)
            case .noticed(let until): (belief, since, count) = (.noticed, CoarseTime(until), 0)
            case .proven(let at, let unanswered): (belief, since, count) = (.proven, CoarseTime(at), UInt8(clamping: unanswered))
            case .refused(let until, let checks): (belief, since, count) = (.refused, CoarseTime(until), UInt8(clamping: checks))
            }
        }
    }
}

extension PeerLocator {
    /// Nothing depends on it.
    fileprivate var isForgettable: Bool { roles.isSubset(of: .guarded) && !state.isRefused }
    /// That it was refused is all that is known of it: a later record that lists it again does not make it new.
    fileprivate var isMemory: Bool { roles.isSubset(of: .guarded) && state.isRefused }
}

/// A peer's places: those of its record in the record's order, then others that something still depends on. The first stands in
/// place; most peers have no other.
struct PeerLocators: RandomAccessCollection, Hashable, Sendable {
    /// Places that no record lists any more and that are known only because they were refused.
    static let memoriesMax = 8

    private var one: PeerLocator?
    private var more: [PeerLocator] = []

    var startIndex: Int { 0 }
    var endIndex: Int { one == nil ? 0 : 1 + more.count }

    subscript(index: Int) -> PeerLocator {
        get {
            guard index == 0, let one else { return more[index - 1] }
            return one
        }
        set {
            if index == 0 { one = newValue } else { more[index - 1] = newValue }
        }
    }

    init() {}

    init(_ locators: [PeerLocator]) {
        one = locators.first
        more = Array(locators.dropFirst())
    }

    subscript(moa: MobileAddress) -> PeerLocator? { first { $0.moa == moa } }

    /// Those of the record in force, as the record has them.
    var listed: [PeerLocator] { filter { $0.roles.contains(.listed) } }

    func has(_ moa: MobileAddress, _ role: PeerLocator.Roles) -> Bool { contains { $0.moa == moa && !$0.roles.isDisjoint(with: role) } }

    /// Whether packets from there are taken as this peer's.
    func holds(_ moa: MobileAddress) -> Bool { contains { $0.moa == moa && $0.roles.contains(.claimed) && $0.state.acceptsPackets } }

    /// Changes what is kept of one place, if it is one of this peer's.
    mutating func update(_ moa: MobileAddress, _ change: (inout PeerLocator) -> Void) {
        for index in indices where self[index].moa == moa {
            change(&self[index])
            return
        }
    }

    /// Gives each place the role if `isIn` says so, and takes it from the others.
    mutating func assign(_ role: PeerLocator.Roles, _ isIn: (PeerLocator) -> Bool) {
        for index in indices {
            if isIn(self[index]) { self[index].roles.insert(role) } else { self[index].roles.remove(role) }
        }
    }

    /// Takes over the lists of a record and of the one before; what neither lists stays as long as it has another role.
    mutating func list(_ listed: [Locator], earlier: [Locator]) {
        var result: [PeerLocator] = []
        func enter(_ locator: Locator, _ role: PeerLocator.Roles) {
            if let index = result.firstIndex(where: { $0.moa == locator.moa }) {
                result[index].roles.insert(role)
                return
            }
            var entry = self[locator.moa] ?? PeerLocator(locator.moa, [])
            entry.roles.subtract([.listed, .earlier])
            entry.roles.insert(role)
            entry.preference = locator.preference
            result.append(entry)
        }
        for locator in listed { enter(locator, .listed) }
        for locator in earlier { enter(locator, .earlier) }
        for var other in self where !result.contains(where: { $0.moa == other.moa }) {
            other.roles.subtract([.listed, .earlier])
            if !other.isForgettable, !other.isMemory || result.count(where: \.isMemory) < Self.memoriesMax { result.append(other) }
        }
        self = PeerLocators(result)
    }

    /// Forgets places without a role.
    mutating func prune() {
        guard contains(where: \.isForgettable) else { return }
        self = PeerLocators(filter { !$0.isForgettable })
    }
}
