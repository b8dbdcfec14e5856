import IMTPlan
import MATSignal
import Testing

@testable import MATNode

@Suite("Packets that are held")
struct HoldQueueTests {
    /// An IPv4 packet of 20 octets of header and 8 of TCP or UDP.
    private func packet(_ protocolNumber: UInt8, from port: UInt16, number: UInt8 = 0) throws -> HeldPacket {
        var octets: [UInt8] = [0x45, 0, 0, 40, 0, number, 0, 0, 64, protocolNumber, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1]
        octets += [UInt8(port >> 8), UInt8(port & 0xFF), 0, 80] + [UInt8](repeating: 0, count: 16)
        return try #require(HeldPacket(octets))
    }

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
