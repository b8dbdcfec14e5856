import Glibc
import KernelPrograms
import MATSignal
import RelayCore

/// How Programs/relay.bpf.c has its maps. All numbers are the machine's, ports and addresses as on the wire.
enum KernelLayout {
    static func homes(entriesMax: Int) -> KernelMap.Shape {
        KernelMap.Shape(.hash, "homes", keyOctets: 16, valueOctets: 88, entriesMax: entriesMax, growsAsNeeded: true)
    }
    static func networks(entriesMax: Int) -> KernelMap.Shape {
        KernelMap.Shape(.prefixes, "networks", keyOctets: 20, valueOctets: 88, entriesMax: entriesMax, growsAsNeeded: true)
    }
    static func slots(entriesMax: Int) -> KernelMap.Shape {
        KernelMap.Shape(.array, "slots", keyOctets: 4, valueOctets: 128, entriesMax: entriesMax, isInMemory: true)
    }
    static let state = KernelMap.Shape(.array, "state", keyOctets: 4, valueOctets: 128, entriesMax: 1, isInMemory: true)

    /// Words of `struct slot`.
    enum Slot {
        static let sourceFullAt = 0, destinationFullAt = 1, octetsSent = 2, octetsReceived = 3, packetsSent = 4, until = 5, agentUntil = 6
        static let previousUntil = 7
        /// The agent's own: how many octets, sent and received, the state file tells of.
        static let octetsWritten = 8
    }

    /// Words of `struct relay`.
    enum State {
        static let home = 0, visitors = 2, relay = 4, droppedSourceRate = 10, port = 11
    }

    static func networkKey(_ prefix: IPPrefix) -> [UInt8] { native(UInt32(prefix.length)) + prefix.address.octets }

    private static let resident: UInt32 = 1, refusesVisitors: UInt32 = 2

    /// `struct home`.
    static func home(_ binding: KernelBinding, _ way: RouteQuery.Way?) -> [UInt8] {
        let flags = (binding.isResident ? resident : 0) | (binding.refusesVisitors ? refusesVisitors : 0)
        let nowhere = IPAddress.unspecifiedIPv6.octets
        var octets = binding.endpoint.address.octets + binding.local.address.octets + (binding.previous?.address.octets ?? nowhere)
        octets += native(UInt32(truncatingIfNeeded: binding.slot)) + native(way?.interface ?? 0) + native(way?.octetsMax ?? 0)
        octets += native(binding.endpoint.port.bigEndian) + native((binding.previous?.port ?? 0).bigEndian) + native(flags)
        let next = way?.next.packetOctets ?? []
        octets += native(UInt32(next.count == 4 ? AF_INET : AF_INET6)) + next
        return octets + [UInt8](repeating: 0, count: 88 - octets.count)
    }

    /// The slot that a `struct home` names.
    static func slot(of home: UnsafeRawBufferPointer) -> Int { Int(home.loadUnaligned(fromByteOffset: 48, as: UInt32.self)) }

    private static func native<T: FixedWidthInteger>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }
}
