import MATSignal

/// The control groups of programs whose sockets start from other addresses than those of the rest of the host, and the mark of each kind of them.
///
/// ```
///                mark(for:)                entered                     another group with the same mark entered
///   (no mark) ─────────────► reserved ──────────────► in use ◄──────────────────────────────────────────────┐
///       ▲                       │                       │  └──────────────────────────────────────────────────┘
///       └────── released ◄──────┘      ended: its last group is gone
///       ▲                                               │
///       └───────────────────────────────────────────────┘
/// ```
/// Groups are found again after a restart by their names, which say both mark and via. A number that was given back is the last to be given again:
/// a socket may outlive its program's group, handed to another process.
package struct SteeredPrograms {
    /// Of all vias.
    package static let groupsMax = 256
    /// Vias at a time: of each home address alone, of pairs, and plain.
    package static let viasMax = 64

    /// By path below the mount, with the mark.
    private var groups: [String: UInt32] = [:]
    private var vias: [UInt32: ProgramVia] = [:]
    private var last: UInt32 = 0
    /// The upper half of all marks: the agent's own mark.
    private let base: UInt32

    /// - Parameter mark: the agent's own; programs' marks have it above them.
    package init(mark: UInt32) { base = mark << 16 }

    package var isEmpty: Bool { vias.isEmpty }

    /// The mark of each via, as the routing rules have them.
    package var marks: [UInt32: ProgramVia] { vias }

    /// In order.
    package var all: [(path: String, mark: UInt32, via: ProgramVia)] {
        groups.sorted { $0.key < $1.key }.compactMap { path, mark in vias[mark].map { (path, mark, $0) } }
    }

    package func via(of mark: UInt32) -> ProgramVia? { vias[mark] }
    package func contains(_ path: String) -> Bool { groups[path] != nil }

    /// What every mark of programs has: a socket with one of them is a program's.
    package var pattern: (mark: UInt32, mask: UInt32) { (base, 0xFFFF_0000) }

    // MARK: Changes

    /// The mark for a via, a new one if it has none.
    ///
    /// - Returns: `nil` if there is no room.
    package mutating func mark(for via: ProgramVia) -> UInt32? {
        if let known = vias.filter({ $0.value == via }).keys.min() { return known }
        guard vias.count < Self.viasMax, groups.count < Self.groupsMax else { return nil }
        for _ in 0...Self.viasMax {
            last = last % 0xFFFF + 1
            guard vias[base | last] == nil else { continue }
            vias[base | last] = via
            return base | last
        }
        return nil
    }

    package var hasRoomForGroup: Bool { groups.count < Self.groupsMax }

    /// A process is in that group now.
    package mutating func entered(_ path: String, mark: UInt32) {
        guard vias[mark] != nil else { return }
        groups[path] = mark
    }

    /// A group that an earlier run has left.
    ///
    /// - Returns: whether it can be what its name says; one that contradicts another can't.
    package mutating func found(_ path: String, _ name: GroupName) -> Bool {
        guard name.mark & 0xFFFF_0000 == base, vias[name.mark].map({ $0 == name.via }) ?? true, groups.count < Self.groupsMax else { return false }
        vias[name.mark] = name.via
        groups[path] = name.mark
        last = max(last, name.mark & 0xFFFF)
        return true
    }

    /// The group is gone.
    ///
    /// - Returns: whether its via was the last group's: then no rule is for it any more.
    package mutating func ended(_ path: String) -> Bool {
        guard let mark = groups.removeValue(forKey: path) else { return false }
        return release(mark)
    }

    /// Forgets a mark that no group has.
    ///
    /// - Returns: whether it was there and is not any more.
    @discardableResult
    package mutating func release(_ mark: UInt32) -> Bool {
        guard !groups.values.contains(mark) else { return false }
        return vias.removeValue(forKey: mark) != nil
    }
}
