import Glibc
import KernelPrograms
import Namespaces
import Testing

/// Why these tests can't run here; `nil` if they can.
private let impossible: String? = {
    if getuid() != 0 { return "not root" }
    for tool in ["ip", "ping", "mount"] where shellStatus("command -v \(tool)").status != 0 { return "\(tool) is not installed" }
    return (try? KernelMap(KernelMap.Shape(.array, "probe", keyOctets: 4, valueOctets: 8, entriesMax: 1))) == nil ? "no bpf(2) here" : nil
}()

/// A file system of BPF objects of a test's own.
private final class Mount {
    let path: String

    init(_ path: String) throws {
        self.path = path
        try shell("mkdir -p \(path) && mount -t bpf bpf \(path)")
    }

    deinit { _ = shellStatus("umount \(path); rmdir \(path)") }
}

/// A host with a link to another, and a directory for pins that goes with it.
private final class Bench {
    let host: Namespace, other: Namespace
    private let mount: Mount
    var mounted: String { mount.path }
    /// Of the link in `host`.
    let interface: UInt32

    init(_ name: String) throws {
        host = try Namespace("kp-\(getpid())-\(name)a")
        other = try Namespace("kp-\(getpid())-\(name)b")
        mount = try Mount("/tmp/kp-\(getpid())-\(name)")
        try shell("ip link add name left netns \(host.name) type veth peer name right netns \(other.name)")
        for (namespace, link, last) in [(host, "left", 1), (other, "right", 2)] {
            try namespace.run("ip addr add 10.77.0.\(last)/24 dev \(link)")
            try namespace.run("ip link set \(link) up")
        }
        interface = try host.within { if_nametoindex("left") }
    }

    func ping(_ count: Int) throws { try other.run("ping -c \(count) -i 0.01 -W 2 10.77.0.1") }
}

extension Namespace {
    /// Runs work in a thread that has entered the namespace.
    fileprivate func within<T>(_ body: @escaping () throws -> T) throws -> T {
        nonisolated(unsafe) var result: Result<T, any Error> = .failure(ShellError("the thread did not run"))
        nonisolated(unsafe) let work = body
        JoinableThread {
            result = Result {
                try self.enter()
                return try work()
            }
        }.join()
        return try result.get()
    }
}

private let shape = KernelMap.Shape(.array, "counts", keyOctets: 4, valueOctets: 16, entriesMax: 1)

private func packets(_ map: KernelMap) -> Int {
    guard let value = map.value(of: [0, 0, 0, 0]) else { return -1 }
    return value.withUnsafeBytes { Int($0.loadUnaligned(as: UInt64.self)) }
}

@Suite("Programs in the kernel", .serialized, .enabled(if: impossible == nil, "skipped: \(impossible ?? "")"))
struct ProgramTests {
    @Test("Maps keep what is set, list it all, and are found by their pins if they have the measures")
    func maps() throws {
        let bench = try Bench("maps")
        let wanted = KernelMap.Shape(.hash, "numbers", keyOctets: 8, valueOctets: 12, entriesMax: 2000, growsAsNeeded: true)
        let map = try KernelMap(wanted)
        func octets(_ number: Int, _ count: Int) -> [UInt8] {
            withUnsafeBytes(of: UInt64(number)) { Array($0) } + [UInt8](repeating: 7, count: count - 8)
        }
        for number in 0..<1500 { try map.set(octets(number, 8), octets(number * 3, 12)) }
        #expect(map.value(of: octets(1499, 8)) == octets(4497, 12) && map.value(of: octets(1500, 8)) == nil)
        let removed = try (map.remove(octets(1, 8)), map.remove(octets(1, 8)))
        #expect(removed == (true, false))
        var found: Set<UInt64> = []
        try map.forEach { key, value in
            let number = key.loadUnaligned(as: UInt64.self)
            if value.loadUnaligned(as: UInt64.self) == number * 3 { found.insert(number) }
        }
        #expect(found == Set((0..<1500).map { UInt64($0) }).subtracting([1]))
        #expect(map.keys().count == 1499)
        let path = "\(bench.mounted)/numbers"
        try map.pin(at: path)
        #expect(KernelMap(wanted, pinnedAt: path)?.value(of: octets(2, 8)) == octets(6, 12))
        var other = wanted
        other.valueOctets = 16
        #expect(KernelMap(other, pinnedAt: path) == nil && KernelMap(wanted, pinnedAt: path + "2") == nil)
    }

    @Test("A program that the verifier refuses is an error with its words")
    func refused() throws {
        // exit, without a result.
        let error = #expect(throws: ProgramError.self) { try KernelProgram(ProgramCode(name: "bad", instructions: [0x95])) }
        #expect(error?.errno == EACCES && error?.log.contains("R0") == true, "\(error?.description ?? "")")
    }

    /// Also with what matd's unit gives: `setpriv --bounding-set -all,+bpf,+perfmon,+net_admin`.
    @Test("The kernel takes the programs that encapsulate")
    func encapsulation() throws {
        func map(_ kind: KernelMap.Kind, _ name: String, _ key: Int, _ value: Int) throws -> KernelMap {
            try KernelMap(KernelMap.Shape(kind, name, keyOctets: key, valueOctets: value, entriesMax: 4, growsAsNeeded: kind == .hash))
        }
        let maps = try [
            map(.array, "settings", 4, 16 + 8192), map(.hash, "peers4", 8, 392), map(.hash, "peers6", 32, 392), map(.array, "counters", 4, 160),
            map(.array, "drops", 4, 8),
        ]
        let named = Dictionary(uniqueKeysWithValues: maps.map { ($0.shape.name, $0) })
        for code in [EncapsulationPrograms.depart, EncapsulationPrograms.arrive, EncapsulationPrograms.arriveBare] {
            #expect(try KernelProgram(code, maps: named).descriptor >= 0)
        }
    }

    @Test("A program tied to a link sees its packets, and no more once it is taken away", arguments: [ProgramPlace.Way.link, .classifier])
    func attached(_ way: ProgramPlace.Way) throws {
        let bench = try Bench("tie")
        let map = try KernelMap(shape)
        let program = try KernelProgram(CountingPrograms.count, maps: ["counts": map])
        let pin = "\(bench.mounted)/ingress"
        let place = try bench.host.within { try ProgramPlace(program, to: bench.interface, .ingress, pinnedAt: pin, ways: [way]) }
        let isThere = try bench.host.within { place.isThere }
        #expect(place.way == way && isThere)
        try bench.ping(3)
        let seen = packets(map)
        #expect(seen >= 3)
        try bench.host.within { place.detach() }
        try bench.ping(3)
        #expect(packets(map) == seen && access(pin, F_OK) != 0)
        let qdiscs = try bench.host.run("tc qdisc show dev left")
        #expect(!qdiscs.contains("clsact"), "\(qdiscs)")
    }

    @Test("What its maker leaves goes on, and the successor's program takes the same place", arguments: [ProgramPlace.Way.link, .classifier])
    func adopted(_ way: ProgramPlace.Way) throws {
        let bench = try Bench("adopt")
        let pin = "\(bench.mounted)/ingress"
        let first = try KernelMap(shape)
        let second = try KernelMap(shape)
        func tie(_ map: KernelMap) throws -> ProgramPlace {
            let program = try KernelProgram(CountingPrograms.count, maps: ["counts": map])
            return try bench.host.within { try ProgramPlace(program, to: bench.interface, .ingress, pinnedAt: pin, ways: [way]) }
        }
        // Gone at once, like its maker.
        _ = try tie(first)
        try bench.ping(2)
        let seen = packets(first)
        #expect(seen >= 2)
        let place = try tie(second)
        try bench.ping(2)
        #expect(packets(first) == seen && packets(second) >= 2)
        // The link goes and comes back under the same name and, as another, with a place to be made anew.
        try bench.host.run("ip link del left")
        let isThere = try bench.host.within { place.isThere }
        #expect(!isThere)
    }

    @Test("The one way takes the other's place, so that no packet meets two programs")
    func changed() throws {
        let bench = try Bench("change")
        let pin = "\(bench.mounted)/ingress"
        let map = try KernelMap(shape)
        let program = try KernelProgram(CountingPrograms.count, maps: ["counts": map])
        for ways in [[ProgramPlace.Way.classifier], [.link], [.classifier]] {
            let place = try bench.host.within { try ProgramPlace(program, to: bench.interface, .ingress, pinnedAt: pin, ways: ways) }
            #expect(place.way == ways[0] && (access(pin, F_OK) == 0) == (ways[0] == .link))
            let filters = try bench.host.run("tc filter show dev left ingress")
            #expect(filters.contains("bpf") == (ways[0] == .classifier), "\(filters)")
        }
        try bench.host.within { ProgramPlace.detachLeftovers(from: bench.interface, .ingress, pinnedAt: pin) }
        let left = try bench.host.run("tc filter show dev left ingress")
        #expect(!left.contains("bpf"), "\(left)")
    }

    @Test("A directory is one only in a file system of BPF objects, and goes with what is pinned in it")
    func directory() throws {
        let bench = try Bench("dir")
        let directory = try ProgramDirectory("\(bench.mounted)/mat/1")
        try KernelMap(shape).pin(at: directory.path(of: "counts"))
        #expect(directory.names == ["counts"])
        directory.removeAll()
        #expect(access(directory.path, F_OK) != 0)
        let error = #expect(throws: ProgramError.self) { try ProgramDirectory("/tmp") }
        #expect(error?.description.contains("mount -t bpf") == true)
        #expect(ProgramDirectory.networkNamespace != 0)
    }
}
