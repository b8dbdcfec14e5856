import BenchSupport
import CLinux
import Foundation
import Glibc
import IMTKernel
import IMTPlan
import MATRuntime
import MATSignal

/// What a process holds per peer. Each number of peers is a process of its own: memory that was freed is not given back.
///
/// A `MemorySubject` is something that can hold peers; others are added to the list below.
struct AgentMemory {
    static var subjects: [(name: String, make: (Int) throws -> any MemorySubject)] {
        [
            ("IMTKernel", { try KernelSubject(peers: $0) })
        ]
    }

    let network: BenchNetwork
    let program: String

    func run(peers: [Int]) throws -> [ChangeFigure] {
        var all: [ChangeFigure] = []
        for subject in Self.subjects {
            func measure(_ count: Int) throws -> [Double] {
                let text = try network.mn.run("\(program) memory-of \(subject.name) \(count)")
                let values = text.split(separator: " ").compactMap { Double($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
                guard values.count == 2 else { throw BenchError("memory of \(subject.name): \(text)") }
                return values
            }
            let base = try measure(0)
            all.append(ChangeFigure(name: "\(subject.name): resident without peers", unit: "MB", peers: 0, values: [base[0] / 1e6]))
            for count in peers where count > 0 {
                let values = try measure(count)
                all.append(ChangeFigure(name: "\(subject.name): resident", unit: "MB", peers: count, values: [values[0] / 1e6]))
                // A handful of peers disappears in the allocator's pages.
                guard count >= 1000 else { continue }
                for (index, kind) in ["resident", "heap"].enumerated() {
                    all.append(
                        ChangeFigure(
                            name: "\(subject.name): \(kind) per peer", unit: "octets", peers: count,
                            values: [(values[index] - base[index]) / Double(count)]))
                }
            }
        }
        return all
    }

    /// In the process of its own: prints resident memory and heap in use, in octets.
    static func report(_ name: String, peers: Int) throws {
        guard let subject = subjects.first(where: { $0.name == name }) else { throw BenchError("nothing is called \(name)") }
        let held = try subject.make(peers)
        defer { held.remove() }
        let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
        let line = status.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
        let resident = line.flatMap { Double($0.split(separator: " ").dropFirst().first ?? "") } ?? 0
        print(Int(resident * 1024), mat_heap_octets())
    }
}

/// Something that holds peers until it is removed.
protocol MemorySubject {
    func remove()
}

/// The product's kernel side, with an entry in each direction per peer.
private final class KernelSubject: MemorySubject {
    private let loop: EventLoop
    private let kernel: IMTKernel

    init(peers: Int) throws {
        loop = try EventLoop()
        let own = HomeAddress(Plan.mnHoA(true))
        kernel = try IMTKernel(loop: loop, configuration: IMTConfiguration(homeAddresses: [own])) { _ in }
        _ = try kernel.start()
        let moa = MobileAddress(Plan.mnMoA(true))
        try kernel.setOwnLocators(try kernel.currentLinks().usable.filter { $0.address == moa.address })
        try kernel.commit([.setOwn(moa, own)])
        // In portions, as peers come: one transaction for all would leave its buffers in the figure.
        for start in stride(from: 1, through: peers, by: 100) {
            try kernel.commit(
                (start..<min(start + 100, peers + 1)).flatMap { number -> [IMTChange] in
                    let pair = HomePair(own: own, peer: HomeAddress(Plan.peerHoA(true, number)))
                    let peer = MobileAddress(Plan.peerMoA(true, number))
                    return [.setOutbound(pair, .rewritten(MobilePair(own: moa, peer: peer))), .setInbound(peer: peer, pair)]
                })
        }
    }

    func remove() { try? kernel.stop() }
}
