import CLinux
import Glibc

/// A program's place on a link, for packets in one direction.
///
///     way           from Linux   the place ends with
///     .link (tcx)   6.6          this value; or, pinned, with its pin or the link
///     .classifier   4.5          `detach`, or the link: a qdisc and a filter, which no process holds
///
/// Either goes on when the process that made it is killed, the first if it was pinned; its successor ties its own program to the same place, and
/// no packet passes in between. Packets meet the programs of .link first.
package final class ProgramPlace {
    package enum Direction: Sendable, Hashable { case ingress, egress }
    package enum Way: Sendable, Hashable { case link, classifier }
    /// Whose it is: a node's agent and a relay on one host have places of their own. The number is a classifier's preference.
    package enum Owner: UInt32, Sendable, Hashable { case node = 6288, relay = 6290 }

    package let interface: UInt32
    package let direction: Direction
    package let way: Way
    private let owner: Owner
    /// Of the `.link`; else -1.
    private let descriptor: Int32
    private let pin: String?

    /// Ties a program to an interface: in the place of the one that is pinned at the path, if it is tied to that interface.
    ///
    /// - Parameters:
    ///   - pin: a path in a `ProgramDirectory`; without it a `.link` ends with this value.
    ///   - ways: those that may be used, the first that the kernel has. What an earlier process has in the others is taken away.
    package init(
        _ program: KernelProgram, to interface: UInt32, _ direction: Direction, pinnedAt pin: String? = nil, of owner: Owner = .node,
        ways: [Way] = [.link, .classifier]
    ) throws(ProgramError) {
        self.interface = interface
        self.direction = direction
        self.owner = owner
        var failure = ProgramError("tie \(program.name) to interface \(interface): no way to do it", errno: EINVAL)
        for way in ways {
            do throws(ProgramError) {
                switch way {
                case .link:
                    descriptor = try Self.link(program, interface, direction, pin)
                    try? Classifiers.remove(from: interface, direction, of: owner)
                    self.pin = pin
                case .classifier:
                    try Classifiers.set(program, on: interface, direction, of: owner)
                    if let pin { unlink(pin) }
                    descriptor = -1
                    self.pin = nil
                }
                self.way = way
                return
            } catch {
                failure = error
            }
        }
        throw failure
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// Whether the program is still there: the interface may have gone and come back, or somebody may have taken it away.
    package var isThere: Bool {
        switch way {
        case .link: Self.interface(of: descriptor) == interface
        case .classifier: Classifiers.has(on: interface, direction, of: owner)
        }
    }

    /// Takes the program away. The value is of no use afterwards.
    package func detach() {
        if let pin { unlink(pin) }
        switch way {
        // Its descriptor may be held elsewhere too.
        case .link: _ = mat_bpf_link_detach(descriptor)
        case .classifier: try? Classifiers.remove(from: interface, direction, of: owner)
        }
    }

    /// Takes away what an earlier process has tied to an interface, whichever way.
    package static func detachLeftovers(from interface: UInt32, _ direction: Direction, pinnedAt pin: String?, of owner: Owner = .node) {
        if let pin {
            let descriptor = mat_bpf_get(pin)
            if descriptor >= 0 {
                _ = mat_bpf_link_detach(descriptor)
                close(descriptor)
            }
            unlink(pin)
        }
        try? Classifiers.remove(from: interface, direction, of: owner)
    }

    // MARK: Links

    /// linux/bpf.h: BPF_TCX_INGRESS, BPF_TCX_EGRESS; BPF_LINK_TYPE_TCX.
    private static let ingress: UInt32 = 46, egress: UInt32 = 47, tcx: UInt32 = 11

    private static func link(_ program: KernelProgram, _ interface: UInt32, _ direction: Direction, _ pin: String?) throws(ProgramError) -> Int32 {
        if let pin {
            let old = mat_bpf_get(pin)
            if old >= 0 {
                if self.interface(of: old) == interface, mat_bpf_link_update(old, program.descriptor) == 0 { return old }
                close(old)
            }
            // Of an interface that has gone, or something else.
            unlink(pin)
        }
        let descriptor = mat_bpf_attach_tcx(program.descriptor, interface, direction == .egress ? egress : ingress)
        guard descriptor >= 0 else { throw ProgramError("tie \(program.name) to interface \(interface) (tcx)") }
        if let pin, mat_bpf_pin(descriptor, pin) != 0 {
            let error = ProgramError("pin the place of \(program.name) on interface \(interface) at \(pin)")
            close(descriptor)
            throw error
        }
        return descriptor
    }

    /// The interface that a link is tied to; 0 if it has gone.
    private static func interface(of descriptor: Int32) -> UInt32 {
        // struct bpf_link_info: kind, id, program, 4 of room, then of tcx interface and direction.
        var said = [UInt32](repeating: 0, count: 16)
        let octets = UInt32(said.count * 4)
        guard mat_bpf_information(descriptor, &said, octets) == 0, said[0] == tcx else { return 0 }
        return said[4]
    }
}
