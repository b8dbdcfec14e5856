import MATSignal

/// One of a peer's places: what its record says of it, how far that is believed, and what the kernel has of it. 24 octets.
struct PeerLocator: Hashable, Sendable {
    struct Roles: OptionSet, Hashable, Sendable {
        let rawValue: UInt8
        /// The record in force lists it.
        static let listed = Roles(rawValue: 1)
        /// The record before lists it, while the one in force is provisional.
        static let earlier = Roles(rawValue: 2)
        /// It is entered as this peer's in the table of owners.
        static let claimed = Roles(rawValue: 4)
        /// The kernel takes packets from there as this peer's.
        static let accepted = Roles(rawValue: 8)
        /// The kernel sends this peer's packets there.
        static let target = Roles(rawValue: 16)
    }

    private enum Belief: UInt8 {
        case unknown, checking, proven, blocked
    }

    let moa: MobileAddress
    private var since: CoarseTime
    private var belief = Belief.unknown
    private var checks: UInt8 = 0
    /// Lower is preferred.
    var preference: UInt8
    var roles: Roles

    init(_ moa: MobileAddress, preference: UInt8 = 0, _ roles: Roles) {
        self.moa = moa
        self.preference = preference
        self.roles = roles
        since = CoarseTime(.zero)
    }

    /// How far it is believed; `nil` before its first use.
    var state: LocatorState? {
        get {
            switch belief {
            case .unknown: nil
            case .checking: .checking(until: since.time)
            case .proven: .proven(at: since.time)
            case .blocked: .blocked(until: since.time, checks: Int(checks))
            }
        }
        set {
            checks = 0
            switch newValue {
            case nil: belief = .unknown
            case .checking(let until): (belief, since) = (.checking, CoarseTime(until))
            case .proven(let at): (belief, since) = (.proven, CoarseTime(at))
            case .blocked(let until, let count): (belief, since, checks) = (.blocked, CoarseTime(until), UInt8(clamping: count))
            }
        }
    }

    var isBlocked: Bool { belief == .blocked }
    var isProven: Bool { belief == .proven }
}

/// A peer's places: those of its record in the record's order, then others that something still depends on. The first stands in
/// place; most peers have no other.
struct PeerLocators: RandomAccessCollection, Hashable, Sendable {
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
            if !other.roles.isEmpty { result.append(other) }
        }
        self = PeerLocators(result)
    }

    /// Forgets places without a role.
    mutating func prune() {
        guard contains(where: \.roles.isEmpty) else { return }
        self = PeerLocators(filter { !$0.roles.isEmpty })
    }
}
