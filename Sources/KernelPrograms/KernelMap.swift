import CLinux
import Glibc

/// A map that programs and this process share. It lives for as long as this value, a loaded program that names it, or a pin.
///
/// Keys and values are octets as the program's C source lays them out; each is one change, seen by programs as a whole.
package final class KernelMap: @unchecked Sendable {
    package enum Kind: UInt32, Sendable { case hash = 1, array = 2, perCoreHash = 5, perCoreArray = 6, leastRecentlyUsed = 9, prefixes = 11 }

    /// What a map is. One of other measures is another map.
    package struct Shape: Hashable, Sendable {
        package var kind: Kind
        /// At most 15 characters of it are seen in the kernel's lists.
        package var name: String
        package var keyOctets: Int
        package var valueOctets: Int
        package var entriesMax: Int
        /// Memory for an element is taken when it comes, rather than for all at once; what the kernel asks of `prefixes`, and has not for arrays.
        package var growsAsNeeded: Bool
        /// Whether `KernelMemory` can show it; for arrays.
        package var isInMemory: Bool

        package init(
            _ kind: Kind, _ name: String, keyOctets: Int, valueOctets: Int, entriesMax: Int, growsAsNeeded: Bool = false, isInMemory: Bool = false
        ) {
            self.kind = kind
            self.name = name
            self.keyOctets = keyOctets
            self.valueOctets = valueOctets
            self.entriesMax = entriesMax
            self.growsAsNeeded = growsAsNeeded
            self.isInMemory = isInMemory
        }

        /// BPF_F_NO_PREALLOC, BPF_F_MMAPABLE.
        fileprivate var flags: UInt32 { (growsAsNeeded ? 1 : 0) | (isInMemory ? 1 << 10 : 0) }
    }

    /// Elements that one call takes at a time.
    private static let batchMax = 256

    package let shape: Shape
    package let descriptor: Int32

    package init(_ shape: Shape) throws(ProgramError) {
        self.shape = shape
        descriptor = mat_bpf_map_create_named(
            shape.name, shape.kind.rawValue, UInt32(shape.keyOctets), UInt32(shape.valueOctets), UInt32(shape.entriesMax), shape.flags)
        guard descriptor >= 0 else { throw ProgramError("make the map \(shape.name)") }
    }

    /// Takes over what an earlier process has pinned.
    /// - Returns: `nil` if nothing is there, or a map of other measures.
    package init?(_ shape: Shape, pinnedAt path: String) {
        self.shape = shape
        descriptor = mat_bpf_get(path)
        guard descriptor >= 0 else { return nil }
        // struct bpf_map_info: kind, id, octets of keys and values, entries, flags.
        var said = [UInt32](repeating: 0, count: 20)
        let octets = UInt32(said.count * 4)
        let wanted = [UInt32(shape.keyOctets), UInt32(shape.valueOctets), UInt32(shape.entriesMax), shape.flags]
        guard mat_bpf_information(descriptor, &said, octets) == 0, said[0] == shape.kind.rawValue, Array(said[2...5]) == wanted else {
            close(descriptor)
            return nil
        }
    }

    deinit { close(descriptor) }

    package func pin(at path: String) throws(ProgramError) {
        guard mat_bpf_pin(descriptor, path) == 0 else { throw ProgramError("pin the map \(shape.name) at \(path)") }
    }

    // MARK: Elements

    /// Of a map for each core: the values of all cores, one after the other, each filled up to eight octets.
    private var valueOctetsRead: Int {
        switch shape.kind {
        case .perCoreHash, .perCoreArray: (shape.valueOctets + 7) / 8 * 8 * Self.coresCount
        default: shape.valueOctets
        }
    }

    /// Adds or replaces.
    package func set(_ key: [UInt8], _ value: [UInt8]) throws(ProgramError) {
        precondition(key.count == shape.keyOctets && value.count == valueOctetsRead, "an element of another map than \(shape.name)")
        guard mat_bpf_map_update(descriptor, key, value) == 0 else { throw ProgramError("add to the map \(shape.name)") }
    }

    package func value(of key: [UInt8]) -> [UInt8]? {
        precondition(key.count == shape.keyOctets, "a key of another map than \(shape.name)")
        var value = [UInt8](repeating: 0, count: valueOctetsRead)
        return mat_bpf_map_look_up(descriptor, key, &value) == 0 ? value : nil
    }

    /// - Returns: whether it was there.
    @discardableResult
    package func remove(_ key: [UInt8]) throws(ProgramError) -> Bool {
        precondition(key.count == shape.keyOctets, "a key of another map than \(shape.name)")
        guard mat_bpf_map_delete(descriptor, key) != 0 else { return true }
        guard errno == ENOENT else { throw ProgramError("remove from the map \(shape.name)") }
        return false
    }

    /// All keys. What others add or remove meanwhile may be among them or not.
    package func keys() -> [[UInt8]] {
        var result: [[UInt8]] = []
        var next = [UInt8](repeating: 0, count: shape.keyOctets)
        guard mat_bpf_map_next(descriptor, nil, &next) == 0 else { return [] }
        // A key that another takes away begins the walk anew: it ends all the same.
        for _ in 0..<2 * shape.entriesMax {
            result.append(next)
            let last = next
            guard mat_bpf_map_next(descriptor, last, &next) == 0 else { break }
        }
        return result
    }

    /// Calls `body` for each element, key and value where they lie; many come by one call of the kernel.
    package func forEach(_ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Void) throws(ProgramError) {
        let (keyOctets, valueOctets) = (shape.keyOctets, valueOctetsRead)
        var room = Self.batchMax
        // Between calls the kernel notes where it was, in a key's room.
        var place = [UInt8](repeating: 0, count: max(4, keyOctets))
        var next = place
        var isFirst = true
        while true {
            var keys = [UInt8](repeating: 0, count: keyOctets * room)
            var values = [UInt8](repeating: 0, count: valueOctets * room)
            var count = UInt32(room)
            let outcome = mat_bpf_map_batch(24, descriptor, isFirst ? nil : place, &next, &keys, &values, &count)
            let reason = errno
            // A bucket of the hash with more elements than there is room for.
            if outcome != 0, reason == ENOSPC, room < 1 << 16 {
                room *= 2
                continue
            }
            guard outcome == 0 || reason == ENOENT else { throw ProgramError("read the map \(shape.name)", errno: reason) }
            keys.withUnsafeBytes { keys in
                values.withUnsafeBytes { values in
                    for index in 0..<min(Int(count), room) {
                        body(
                            UnsafeRawBufferPointer(rebasing: keys[index * keyOctets..<(index + 1) * keyOctets]),
                            UnsafeRawBufferPointer(rebasing: values[index * valueOctets..<(index + 1) * valueOctets]))
                    }
                }
            }
            guard outcome == 0 else { return }
            place = next
            isFirst = false
        }
    }

    // MARK: Cores

    /// Cores that the kernel has room for, which may be more than there are (/sys/devices/system/cpu/possible: "0-7").
    package static let coresCount: Int = {
        let file = open("/sys/devices/system/cpu/possible", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return max(1, sysconf(Int32(_SC_NPROCESSORS_CONF))) }
        defer { close(file) }
        var text = [UInt8](repeating: 0, count: 64)
        let count = read(file, &text, text.count)
        let numbers = text.prefix(max(0, count)).split { !(0x30...0x39).contains($0) }.compactMap { Int(String(decoding: $0, as: UTF8.self)) }
        return (numbers.last ?? 0) + 1
    }()
}
