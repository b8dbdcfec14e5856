import Glibc
import KernelPrograms
import Logging
import MATRuntime
import MATSignal
import RelayCore

/// Forwarding by a program of the kernel at the ingress of the relay's links (Programs/relay.bpf.c). It does what `RelayCore` says, and tells what the
/// program has forwarded.
///
/// ```
///   start ──► maps made and filled ──► tied to the links, in the place of the run's before ──► pinned ──► changes, counts ... ──► stop
///                                            until here that one's maps and program went on                     killed, or ended: goes on
///                                                                                                               until grants are over
/// ```
final class ForwardingProgram {
    private struct Entry {
        var binding: KernelBinding
        var way: RouteQuery.Way?
        /// What of the slot's counters was told.
        var packetsSent: UInt64 = 0
        var octetsSent: UInt64 = 0
        var octetsReceived: UInt64 = 0
    }

    private let homes: KernelMap
    private let networks: KernelMap
    private let slotsMap: KernelMap
    private let stateMap: KernelMap
    private let slots: KernelMemory
    private let state: KernelMemory
    private let program: KernelProgram
    private let routes: RouteQuery
    private let pins: ProgramDirectory?
    private let logger: Logger
    /// By slots.
    private var entries: [Int: Entry] = [:]
    private var networksCount = 0
    private let port: UInt16
    /// By interfaces.
    private var places: [UInt32: ProgramPlace] = [:]
    /// Changes that the kernel had no memory for.
    private(set) var failures: UInt64 = 0

    /// Makes the maps; nothing is forwarded before `attach`.
    ///
    /// - Parameters:
    ///   - slotsMax: slots above are the agent's.
    ///   - directory: where pins are to be; without them forwarding ends with the process.
    init(port: UInt16, slotsMax: Int, limits: RelayLimits, directory: ProgramDirectory?, _ logger: Logger) throws(RelayError) {
        self.port = port
        self.logger = logger
        pins = directory
        do throws(ProgramError) {
            homes = try KernelMap(KernelLayout.homes(entriesMax: slotsMax))
            networks = try KernelMap(KernelLayout.networks(entriesMax: slotsMax))
            slotsMap = try KernelMap(KernelLayout.slots(entriesMax: slotsMax))
            stateMap = try KernelMap(KernelLayout.state)
            slots = try KernelMemory(slotsMap)
            state = try KernelMemory(stateMap)
            program = try KernelProgram(
                RelayPrograms.relay, maps: ["homes": homes, "networks": networks, "slots": slotsMap, "state": stateMap])
        } catch {
            throw RelayError("\(error)")
        }
        do throws(SystemError) {
            routes = try RouteQuery()
        } catch {
            throw RelayError("\(error)")
        }
        changeRates(limits)
        tellPort()
    }

    /// Where pins of this relay are: others may run in other network namespaces, or at other ports.
    static func directory(_ path: String, port: UInt16) throws(ProgramError) -> ProgramDirectory {
        try ProgramDirectory("\(path)/\(ProgramDirectory.networkNamespace)-\(port)")
    }

    /// Readable when routes may have changed.
    var news: Int32 { routes.news }

    private func tellPort() {
        state[0, KernelLayout.State.port] = UInt64(port.bigEndian) | (networksCount > 0 ? 1 << 16 : 0)
    }

    func changeRates(_ limits: RelayLimits) {
        let rates = KernelRates(limits)
        for (word, rate) in [
            (KernelLayout.State.home, rates.home), (KernelLayout.State.visitors, rates.visitors), (KernelLayout.State.relay, rates.relay),
        ] {
            state[0, word] = rate.cost
            state[0, word + 1] = rate.burst
        }
    }

    // MARK: Links

    /// Ties the program to each link with Ethernet's addresses that has an address of its own.
    func attach() {
        let wanted = LocalAddresses.interfaces().filter { RouteQuery.Link($0)?.isEthernet ?? false }
        for (interface, place) in places where !wanted.contains(interface) || !place.isThere {
            place.detach()
            places[interface] = nil
        }
        for interface in wanted.sorted() where places[interface] == nil {
            do throws(ProgramError) {
                places[interface] = try ProgramPlace(
                    program, to: interface, .ingress, pinnedAt: pins?.path(of: "ingress-\(interface)"), of: .relay)
            } catch {
                logger.warning("what comes over interface \(interface) is forwarded by the agent: \(error)")
            }
        }
    }

    var linksCount: Int { places.count }

    func clearNews() { routes.clear() }

    /// Routes, links or addresses have changed.
    func follow() {
        attach()
        for (slot, entry) in entries {
            let way = routes.way(from: entry.binding.local.address, to: entry.binding.endpoint.address)
            guard way != entry.way else { continue }
            entries[slot]?.way = way
            write(entry.binding, way)
        }
    }

    // MARK: Changes

    /// - Parameter late: gets what was forwarded for a binding that has ended, beyond what `counts` told.
    func apply(_ change: KernelChange, late: (UInt64, IPPrefix) -> Void) {
        switch change {
        case .enter(let binding): enter(binding)
        case .extend(let slot, let until): if entries[slot] != nil { slots[slot, KernelLayout.Slot.until] = Self.time(until) }
        case .bar(let slot, let isBarred): if entries[slot] != nil { slots[slot, KernelLayout.Slot.agentUntil] = isBarred ? .max : 0 }
        case .leave(let slot, let prefix):
            guard let entry = entries[slot], entry.binding.prefix == prefix else { return }
            slots[slot, KernelLayout.Slot.until] = 0
            remove(prefix)
            let octets = slots[slot, KernelLayout.Slot.octetsSent] &+ slots[slot, KernelLayout.Slot.octetsReceived]
            let told = entry.octetsSent &+ entry.octetsReceived
            entries[slot] = nil
            if octets > told { late(octets - told, prefix) }
        }
    }

    private func enter(_ binding: KernelBinding) {
        let slot = binding.slot
        guard slot < slots.count else { return }
        let way = routes.way(from: binding.local.address, to: binding.endpoint.address)
        if entries[slot]?.binding.prefix != binding.prefix {
            if let other = entries[slot] { remove(other.binding.prefix) }
            for word in 0...KernelLayout.Slot.octetsWritten { slots[slot, word] = 0 }
            entries[slot] = Entry(binding: binding, way: way)
        } else {
            entries[slot]?.binding = binding
            entries[slot]?.way = way
        }
        slots[slot, KernelLayout.Slot.previousUntil] = Self.time(binding.previousUntil)
        slots[slot, KernelLayout.Slot.until] = Self.time(binding.until)
        write(binding, way)
    }

    /// What can't be written is not found by the program, and so the agent's.
    private func write(_ binding: KernelBinding, _ way: RouteQuery.Way?) {
        let home = KernelLayout.home(binding, way)
        do throws(ProgramError) {
            if binding.prefix.length == 128 {
                try homes.set(binding.prefix.address.octets, home)
            } else {
                let isKnown = networks.value(of: KernelLayout.networkKey(binding.prefix)) != nil
                try networks.set(KernelLayout.networkKey(binding.prefix), home)
                if !isKnown { networksCount += 1 }
                tellPort()
            }
        } catch {
            failures += 1
            remove(binding.prefix)
        }
    }

    private func remove(_ prefix: IPPrefix) {
        if prefix.length == 128 {
            _ = try? homes.remove(prefix.address.octets)
        } else if (try? networks.remove(KernelLayout.networkKey(prefix))) ?? false {
            networksCount -= 1
            tellPort()
        }
    }

    /// The program's clock stands still while the machine sleeps; when it wakes, this process ends by itself what is over.
    private static func time(_ time: MonotonicTime) -> UInt64 {
        guard time != .zero else { return 0 }
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let left = time - SystemClock.now().monotonic
        return UInt64(clamping: Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec) &+ min(left, .seconds(1_000_000_000)).nanosecondsSaturated)
    }

    // MARK: Counts

    /// What was forwarded since this was asked last.
    func counts() -> [KernelCount] {
        var counts: [KernelCount] = []
        // In place: there may be very many.
        var place = entries.startIndex
        while place != entries.endIndex {
            let slot = entries[place].key
            let packets = slots[slot, KernelLayout.Slot.packetsSent]
            let sent = slots[slot, KernelLayout.Slot.octetsSent]
            let received = slots[slot, KernelLayout.Slot.octetsReceived]
            let told = entries.values[place]
            if sent != told.octetsSent || received != told.octetsReceived || packets != told.packetsSent {
                counts.append(
                    KernelCount(
                        slot: slot, packetsSent: packets &- told.packetsSent, octetsSent: sent &- told.octetsSent,
                        octetsReceived: received &- told.octetsReceived))
                entries.values[place].packetsSent = packets
                entries.values[place].octetsSent = sent
                entries.values[place].octetsReceived = received
            }
            entries.formIndex(after: &place)
        }
        return counts.sorted { $0.slot < $1.slot }
    }

    var droppedSourceRate: UInt64 { state[0, KernelLayout.State.droppedSourceRate] }

    /// What `counts` has told up to now, for `written`.
    func told() -> [(slot: Int, prefix: IPPrefix, octets: UInt64)] {
        entries.map { ($0.key, $0.value.binding.prefix, $0.value.octetsSent &+ $0.value.octetsReceived) }
    }

    /// The state file tells of so much.
    func written(_ told: [(slot: Int, prefix: IPPrefix, octets: UInt64)]) {
        for (slot, prefix, octets) in told where entries[slot]?.binding.prefix == prefix {
            slots[slot, KernelLayout.Slot.octetsWritten] = octets
        }
    }

    // MARK: Another run

    /// Pins the maps, for the run after this. Those of the run before are gone then.
    func pin() {
        guard let pins else { return }
        for map in [homes, slotsMap] {
            pins.remove(map.shape.name)
            do throws(ProgramError) {
                try map.pin(at: pins.path(of: map.shape.name))
            } catch {
                logger.warning("what is forwarded while this relay is down will not be counted: \(error)")
            }
        }
        let kept = Set(places.keys.map { "ingress-\($0)" } + [homes.shape.name, slotsMap.shape.name])
        for name in pins.names where !kept.contains(name) { pins.remove(name) }
    }

    /// What a run before forwarded of each single HoA beyond what its state file tells.
    static func leftCounts(_ directory: ProgramDirectory, slotsMax: Int) -> [(prefix: IPPrefix, octets: UInt64)] {
        guard let homes = KernelMap(KernelLayout.homes(entriesMax: slotsMax), pinnedAt: directory.path(of: "homes")),
            let map = KernelMap(KernelLayout.slots(entriesMax: slotsMax), pinnedAt: directory.path(of: "slots")),
            let slots = try? KernelMemory(map)
        else { return [] }
        var counts: [(prefix: IPPrefix, octets: UInt64)] = []
        try? homes.forEach { key, home in
            let slot = KernelLayout.slot(of: home)
            guard slot < slots.count else { return }
            let octets = slots[slot, KernelLayout.Slot.octetsSent] &+ slots[slot, KernelLayout.Slot.octetsReceived]
            let written = slots[slot, KernelLayout.Slot.octetsWritten]
            let address = IPAddress(
                high: UInt64(bigEndian: key.loadUnaligned(as: UInt64.self)),
                low: UInt64(bigEndian: key.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
            if octets > written { counts.append((IPPrefix(address), octets - written)) }
        }
        return counts.sorted { $0.prefix < $1.prefix }
    }

    /// Takes the program and all pins away.
    func remove() {
        for place in places.values { place.detach() }
        places = [:]
        pins?.removeAll()
    }

    /// Takes away what a run before has left.
    static func removeLeftovers(_ directory: ProgramDirectory) {
        // Those that no pin tells of (clsact).
        for interface in LocalAddresses.interfaces() { ProgramPlace.detachLeftovers(from: interface, .ingress, pinnedAt: nil, of: .relay) }
        for name in directory.names {
            guard name.hasPrefix("ingress-"), let interface = UInt32(name.dropFirst("ingress-".count)) else { continue }
            ProgramPlace.detachLeftovers(from: interface, .ingress, pinnedAt: directory.path(of: name), of: .relay)
        }
        directory.removeAll()
    }
}
