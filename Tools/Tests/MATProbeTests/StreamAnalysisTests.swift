import Testing

@testable import MATProbe

/// Probes every millisecond; each arrives 0.2 ms after it was sent unless a test says otherwise.
private func reception(_ number: UInt64, sentAt: Double? = nil, receivedAt: Double? = nil) -> Reception {
    let sent = sentAt ?? Double(number)
    return Reception(number: number, sent: Nanoseconds(sent * 1e6), received: Nanoseconds((receivedAt ?? sent + 0.2) * 1e6))
}

private func analysis(_ receptions: [Reception], sent: UInt64?) -> StreamAnalysis {
    StreamAnalysis(receptions, sent: sent, interval: ProbeClock.perMillisecond)
}

@Suite("A stream's analysis")
struct StreamAnalysisTests {
    @Test("finds nothing wrong with an undisturbed stream")
    func undisturbed() {
        let result = analysis((0..<100).map { reception($0) }, sent: 100)
        #expect(result.lost == 0 && result.duplicated == 0 && result.reordered == 0 && result.received == 100)
        #expect(abs(result.largestGapMilliseconds - 1) < 0.001 && result.gaps.isEmpty)
    }

    @Test("counts what is missing in the middle and at the end as lost")
    func loss() {
        let result = analysis((0..<90).filter { $0 != 40 && $0 != 41 }.map { reception($0) }, sent: 100)
        #expect(result.lost == 12 && result.received == 88)
        #expect(result.largestGapMilliseconds == 3)
    }

    @Test("without the peer's word takes the highest number for what was sent, and says so")
    func unknownTotal() {
        let result = analysis([0, 1, 5].map { reception($0) }, sent: nil)
        #expect(result.sent == 6 && result.lost == 3 && !result.sentIsKnown)
    }

    @Test("tells a duplicate from a packet that was overtaken")
    func duplicatesAndReordering() {
        let result = analysis([0, 1, 3, 2, 3, 4].map { reception($0) }, sent: 5)
        #expect(result.duplicated == 1 && result.reordered == 1 && result.lost == 0)
    }

    @Test("lists a gap with its time and length")
    func gap() throws {
        let result = analysis((0..<10).map { reception($0) } + (40..<50).map { reception($0) }, sent: 50)
        let gap = try #require(result.gaps.first)
        #expect(result.gaps.count == 1 && gap.milliseconds == 31 && gap.networkMilliseconds == 31)
        #expect(gap.from == 9_200_000 && gap.to == 40_200_000)
    }

    @Test("does not blame the network for a sender that was late")
    func lateSender() throws {
        let result = analysis([reception(0), reception(1), reception(2, sentAt: 32), reception(3, sentAt: 32.01)], sent: 4)
        let gap = try #require(result.gaps.first)
        #expect(gap.milliseconds == 31 && gap.networkMilliseconds == 1)
        #expect(result.largestNetworkGapMilliseconds == 1)
    }

    @Test("blames the network for packets that were sent in time and came late")
    func heldPackets() {
        let result = analysis([reception(0), reception(1, receivedAt: 50), reception(2, receivedAt: 50.1)], sent: 3)
        #expect(result.largestNetworkGapMilliseconds > 49 && result.lost == 0)
    }

    @Test("of nothing is empty")
    func nothing() {
        let result = analysis([], sent: 10)
        #expect(result.lost == 10 && result.received == 0 && result.gaps.isEmpty)
    }
}

@Suite("A probe packet")
struct ProbePacketTests {
    private let packet = ProbePacket(
        kind: .probe, run: 0x0102_0304, intervalMicroseconds: 1000, durationMilliseconds: 30_000, number: 77, sent: 123_456_789_012)

    @Test("survives the wire")
    func roundTrip() {
        var bytes = [UInt8](repeating: 0xff, count: ProbePacket.octets)
        bytes.withUnsafeMutableBytes { packet.encode(into: $0) }
        #expect(bytes.withUnsafeBytes { ProbePacket(decoding: $0) } == packet)
    }

    @Test("is told from foreign datagrams, whatever their length and content")
    func foreign() {
        var bytes = [UInt8](repeating: 0, count: ProbePacket.octets)
        bytes.withUnsafeMutableBytes { packet.encode(into: $0) }
        for length in 0..<ProbePacket.octets { #expect(bytes[..<length].withUnsafeBytes { ProbePacket(decoding: $0) } == nil) }
        for index in 0..<5 {
            var changed = bytes
            changed[index] ^= 0xf0
            #expect(changed.withUnsafeBytes { ProbePacket(decoding: $0) } == nil)
        }
    }
}
