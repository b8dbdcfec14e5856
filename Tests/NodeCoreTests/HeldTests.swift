import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// An IPv4 packet of 20 octets of header and 20 of TCP or UDP.
private func packet(_ protocolNumber: UInt8, from port: UInt16, number: UInt8 = 0, isOpener: Bool? = nil) throws -> HeldPacket {
    var octets: [UInt8] = [0x45, 0, 0, 40, 0, number, 0, 0, 64, protocolNumber, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1]
    octets += [UInt8(port >> 8), UInt8(port & 0xFF), 0, 80] + [UInt8](repeating: 0, count: 16)
    return try #require(HeldPacket(octets, isOpener: isOpener))
}

@Suite("The room for held packets")
struct HoldQueueTests {
    @Test("A stream of datagrams does not push out the segment that brings a connection back")
    func fairness() throws {
        var queue = HoldQueue<Int>(ageMax: .seconds(10))
        queue.hold(try packet(6, from: 1000), for: 1, now: .zero)
        for number in 0..<1000 { queue.hold(try packet(17, from: 2000, number: UInt8(number & 0xFF)), for: 1, now: .zero) }
        let taken = queue.take(1, now: .zero)
        #expect(taken.filter { $0.protocolNumber == 6 }.count == 1)
        #expect(taken.count == 1 + HoldQueue<Int>.packetsPerFlowMax)
        // The newest of the stream are kept, in order.
        #expect(taken.last?.bytes[5] == UInt8(999 & 0xFF))
        #expect(queue.count == 0)
    }

    @Test("Many flows to one destination share its room: the largest gives")
    func sharing() throws {
        var queue = HoldQueue<Int>(ageMax: .seconds(10))
        for number in 0..<64 { queue.hold(try packet(17, from: 1, number: UInt8(number)), for: 1, now: .zero) }
        for port in 2...240 { queue.hold(try packet(6, from: UInt16(port)), for: 1, now: .zero) }
        let taken = queue.take(1, now: .zero)
        #expect(taken.count == HoldQueue<Int>.packetsPerKeyMax)
        #expect(taken.filter { $0.protocolNumber == 6 }.count == 239)
    }

    @Test("What was lifted and could not go is put back before what came meanwhile, and is no younger for it")
    func putBack() throws {
        var queue = HoldQueue<Int>(ageMax: .seconds(10))
        for number in 0..<4 { queue.hold(try packet(17, from: 1, number: UInt8(number)), for: 1, now: .zero + .seconds(number)) }
        let lifted = queue.lift(1, now: .zero + .seconds(4))
        #expect(lifted.count == 4 && queue.count == 0)
        queue.hold(try packet(17, from: 1, number: 9), for: 1, now: .zero + .seconds(5))
        queue.putBack(lifted.dropFirst(), for: 1)
        #expect(queue.count == 4)
        // The first of them is eleven seconds old now.
        #expect(queue.take(1, now: .zero + .seconds(12)).map { $0.bytes[5] } == [2, 3, 9])
        queue.putBack([], for: 2)
        #expect(queue.keys.isEmpty && queue.count == 0)
    }

    @Test("What is too old to be of use is not sent on, and all keys together are bounded")
    func bounds() throws {
        var queue = HoldQueue<Int>(ageMax: .seconds(10))
        queue.hold(try packet(6, from: 1), for: 1, now: .zero)
        #expect(queue.take(1, now: .zero + .seconds(11)).isEmpty)
        for key in 0..<5000 { queue.hold(try packet(6, from: 1), for: key, now: MonotonicTime(nanoseconds: Int64(key))) }
        #expect(queue.count == HoldQueue<Int>.packetsMax)
        #expect(queue.take(0, now: .zero).isEmpty && queue.take(4999, now: .zero).count == 1)
        queue.prune(now: .zero + .seconds(60))
        #expect(queue.count == 0)
    }
}

@Suite("Packets that are held")
struct HeldTests {
    private let first = HeldDestination(core: 0, address: ip("203.0.113.1"))
    private let second = HeldDestination(core: 0, address: ip("203.0.113.2"))
    private func at(_ milliseconds: Int) -> MonotonicTime { .zero + .seconds(100) + .milliseconds(milliseconds) }
    private func numbers(_ offer: HeldOffer?) -> [UInt8]? { offer?.packets.map { $0.bytes[5] } }

    @Test("What the kernel refuses is tried again after 50 ms, and twice as late each time up to 1.6 s; that is told once")
    func refused() throws {
        var held = Held()
        held.hold(try packet(6, from: 1), for: first, now: at(0))
        #expect(held.release(first, now: at(0)) != nil)
        #expect(held.exited(first, .sent(0), now: at(0)) == true)
        #expect(held.release(first, now: at(1)) == nil, "it waits for its turn")
        var time = 0
        for delay in [50, 100, 200, 400, 800, 1600, 1600, 1600] {
            time += delay
            #expect(held.nextDeadline == at(time))
            #expect(held.retry(now: at(time - 1)).isEmpty)
            let offers = held.retry(now: at(time))
            #expect(offers.map(\.destination) == [first] && held.nextDeadline == nil)
            #expect(held.exited(first, .sent(0), now: at(time)) == false)
        }
        // The packets have left: a refusal after that is reported anew.
        time += 1600
        #expect(held.retry(now: at(time)).count == 1)
        #expect(!held.exited(first, .sent(1), now: at(time)) && held.nextDeadline == nil && held.count == 0)
        held.hold(try packet(6, from: 1), for: second, now: at(time))
        #expect(held.release(second, now: at(time)) != nil)
        #expect(held.exited(second, .sent(0), now: at(time)) && held.nextDeadline == at(time + 50))
    }

    @Test("One round tries all that was refused, in order; who is refused meanwhile waits for the next")
    func rounds() throws {
        var held = Held()
        for destination in [second, first] {
            held.hold(try packet(6, from: 1), for: destination, now: at(0))
            _ = held.release(destination, now: at(0))
        }
        #expect(held.exited(second, .sent(0), now: at(0)) && !held.exited(first, .sent(0), now: at(10)))
        #expect(held.retry(now: at(50)).map(\.destination) == [first, second])
        _ = held.exited(first, .sent(1), now: at(50))
        #expect(held.nextDeadline == nil, "the round is not over")
        _ = held.exited(second, .sent(0), now: at(50))
        #expect(held.nextDeadline == at(150))
    }

    @Test("What did not go waits before what came meanwhile, and goes in order")
    func order() throws {
        var held = Held()
        for number in 1...3 { held.hold(try packet(17, from: 1, number: UInt8(number)), for: first, now: at(0)) }
        #expect(numbers(held.release(first, now: at(0))) == [1, 2, 3])
        held.hold(try packet(17, from: 1, number: 4), for: first, now: at(1))
        _ = held.exited(first, .sent(1), now: at(1))
        #expect(numbers(held.retry(now: at(60)).first) == [2, 3, 4])
        // Those have waited for 10 s and are dropped.
        _ = held.exited(first, .sent(0), now: at(60))
        #expect(held.retry(now: at(10_001)).map { numbers($0) } == [[4]])
    }

    @Test("What begins a connection waits on while its peer is told of a move, and everything else to the peer goes")
    func begun() throws {
        var held = Held()
        func segment(_ flags: UInt8, number: UInt8) throws -> HeldPacket {
            var octets = try packet(6, from: 1, number: number).bytes
            octets[33] = flags
            return try #require(HeldPacket(octets))
        }
        held.hold(try segment(0x02, number: 1), for: first, now: at(0))
        held.hold(try segment(0x10, number: 2), for: first, now: at(0))
        held.hold(try packet(17, from: 1, number: 3), for: first, now: at(0))
        held.hold(try segment(0x02, number: 4), for: second, now: at(0))
        let offers = held.releaseRouted(holding: { $0 == first }, now: at(1))
        #expect(offers.map { numbers($0) } == [[2, 3], [4]])
        #expect(!held.exited(first, .sent(2), now: at(1)) && !held.exited(second, .sent(1), now: at(1)))
        #expect(held.release(first, holding: true, now: at(2)) == nil)
        #expect(numbers(held.release(first, now: at(3))) == [1])
    }

    @Test("What has no way waits until something is routed, without tries of its own; then only what has an entry may go")
    func routed() throws {
        var held = Held()
        for destination in [first, second] { held.hold(try packet(6, from: 1), for: destination, now: at(0)) }
        _ = held.release(first, now: at(0))
        #expect(!held.exited(first, .noWay, now: at(0)) && held.nextDeadline == nil)
        let offers = held.releaseRouted(now: at(5000))
        #expect(offers.map(\.destination) == [first, second] && offers.allSatisfy(\.needsEntry))
        #expect(!held.exited(first, .sent(1), now: at(5000)) && !held.exited(second, .noEntry, now: at(5000)))
        #expect(held.count == 1)
        // Whether the other may be talked to plainly is known now.
        let offer = held.release(second, now: at(6000))
        #expect(offer?.needsEntry == false)
    }

    @Test("When something is routed, what was refused is tried at once")
    func routedAfterRefusal() throws {
        var held = Held()
        held.hold(try packet(6, from: 1), for: first, now: at(0))
        _ = held.release(first, now: at(0))
        _ = held.exited(first, .sent(0), now: at(0))
        #expect(held.releaseRouted(now: at(10)).map(\.destination) == [first])
        #expect(held.exited(first, .sent(0), now: at(10)) == false, "it is the same episode")
        #expect(held.nextDeadline == at(50))
    }

    @Test("Cores have packets of their own for one destination, and questions to DNS servers can go alone")
    func cores() throws {
        var held = Held()
        let other = HeldDestination(core: 1, address: first.address)
        held.hold(try packet(6, from: 1, number: 1), for: first, now: at(0))
        held.hold(try packet(6, from: 1, number: 2), for: other, now: at(0))
        held.drop(first, now: at(0))
        #expect(held.release(first, now: at(0)) == nil && numbers(held.release(other, now: at(0))) == [2])
        #expect(held.removeNames(other, now: at(0)).isEmpty)
    }

    @Test("What opens connections is let in before all else, or alone")
    func inbound() throws {
        var held = Held()
        let (source, own) = (ip("192.0.2.1"), ip("198.51.100.1"))
        for (number, isOpener) in [(1, false), (2, true), (3, false), (4, true)] {
            held.hold(inbound: try packet(17, from: 1, number: UInt8(number), isOpener: isOpener), now: at(0))
        }
        #expect(held.remove(from: source, to: own, openersOnly: true, now: at(1)).map { $0.bytes[5] } == [2, 4])
        held.hold(inbound: try packet(17, from: 1, number: 5, isOpener: true), now: at(2))
        #expect(held.remove(from: source, to: own, now: at(3)).map { $0.bytes[5] } == [5, 1, 3])
        #expect(held.count == 0)
    }

    @Test("A TCP segment or a datagram with ports would be answered by the stack; a later fragment, or what opens a connection, would not")
    func segments() throws {
        #expect(try packet(6, from: 1).isSegment && packet(17, from: 1).isSegment)
        #expect(try !packet(17, from: 1, isOpener: true).isSegment)
        #expect(try !packet(1, from: 1).isSegment)
        var fragment = try packet(17, from: 1).bytes
        fragment[7] = 8
        #expect(try #require(HeldPacket(fragment)).isSegment == false)
    }
}

@Suite("Encapsulated packets from elsewhere that wait")
struct HeldEncapsulatedTests {
    private let shown = Endpoint(ip("192.0.2.100"), port: 40_001)
    private let other = Endpoint(ip("192.0.2.100"), port: 40_002)

    @Test("Sixteen of a source from one endpoint wait, in order, and go by themselves: not with what came from another endpoint, nor for long")
    func waiting() throws {
        var held = Held()
        for number in 0..<40 { held.hold(encapsulated: try packet(17, from: 1, number: UInt8(number)), from: shown, core: 0, now: .zero) }
        held.hold(encapsulated: try packet(17, from: 1, number: 99), from: other, core: 0, now: .zero)
        #expect(held.count == 17)
        let wrongCore = held.removeEncapsulated(of: ip("192.0.2.1"), from: shown, core: 1, now: .zero)
        let wrongSource = held.removeEncapsulated(of: ip("192.0.2.2"), from: shown, core: 0, now: .zero)
        #expect(wrongCore.isEmpty && wrongSource.isEmpty)
        let out = held.removeEncapsulated(of: ip("192.0.2.1"), from: shown, core: 0, now: .zero)
        #expect(out.map { $0.bytes[5] } == Array(24..<40))
        held.prune(now: .zero + .seconds(11))
        #expect(held.count == 0)
    }

    @Test("Many endpoints share the room")
    func bound() throws {
        var held = Held()
        for port in 1...3000 {
            held.hold(encapsulated: try packet(17, from: 1), from: Endpoint(shown.address, port: UInt16(port)), core: 0, now: .zero)
        }
        #expect(held.count == Held.encapsulatedMax)
    }
}
