import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("Packets that come for those that go out") struct RecentAnswersTests {
    private func answers(after readings: [(sent: UInt64, came: UInt64)]) -> RecentAnswers {
        var (answers, so) = (RecentAnswers(), PeerPackets())
        for reading in readings {
            so.add(PeerPackets(sent: reading.sent, came: reading.came))
            answers.counted(so)
        }
        return answers
    }

    @Test("A conversation keeps its measure while it rests, and when it has gone unanswered for some seconds")
    func conversation() {
        let typed = [(sent: UInt64(2), came: UInt64(1))] + Array(repeating: (2, 1), count: 9)
        #expect(abs(answers(after: typed).perPacketSent - 0.5) < 0.01)
        #expect(answers(after: typed + Array(repeating: (0, 0), count: 100)) == answers(after: typed))
        #expect(answers(after: typed + [(1, 0), (1, 0)]).perPacketSent > 0.3)
    }

    @Test("Of a stream in one direction a question answered at its beginning, or a conversation that went before, is soon forgotten")
    func stream() {
        #expect(answers(after: [(17, 1)]).perPacketSent == 0)
        #expect(answers(after: Array(repeating: (20, 20), count: 20) + Array(repeating: (500, 0), count: 14)).perPacketSent == 0)
        // Reports once a second.
        #expect(abs(answers(after: Array(repeating: (50, 1), count: 20)).perPacketSent - 0.02) < 0.001)
    }

    @Test("Counts that begin anew, with the kernel's tables, say nothing by themselves")
    func anew() {
        var answers = RecentAnswers()
        answers.counted(PeerPackets(sent: 100, came: 100))
        let before = answers.perPacketSent
        answers.counted(PeerPackets(sent: 3, came: 1))
        #expect(answers.perPacketSent == before)
        answers.counted(PeerPackets(sent: 4, came: 2))
        #expect(answers.perPacketSent == before)
    }

    @Test("They are known of the busiest peers, of those that were busy while there is room, and of nobody whose packets were not counted yet")
    func busiest() throws {
        var (table, busiest) = (PeerTable(), BusiestPeers())
        let hoas = (1...100).map { home("203.0.113.\($0)") }
        for hoa in hoas { table.enter(try Peers.peer(hoa)) }
        func count(_ hoas: some Sequence<HomeAddress>, _ packets: PeerPackets) {
            _ = busiest.counted(hoas.map { (key: $0, value: packets) }, in: &table, now: time(1000))
        }
        count(hoas[..<1], PeerPackets(sent: 10, came: 10))
        count(hoas[1..<2], PeerPackets(sent: 10, came: 5))
        #expect(busiest.answers(of: hoas[0])?.perPacketSent == 1)
        #expect(busiest.answers(of: hoas[1])?.perPacketSent == 0.5)
        #expect(busiest.answers(of: hoas[2]) == nil)
        count(hoas[30...], PeerPackets(sent: 90, came: 90))
        #expect(busiest.answers(of: hoas[0]) == nil)
        #expect(hoas[30...].filter { busiest.answers(of: $0) != nil }.count == BusiestPeers.countMax)
        // What it had exchanged before it came back among them is not lately.
        count(hoas[..<1], PeerPackets(sent: 11, came: 10))
        #expect(busiest.answers(of: hoas[0]) == nil)
        count(hoas[..<1], PeerPackets(sent: 50, came: 10))
        #expect(busiest.answers(of: hoas[0])?.perPacketSent == 0)
    }
}
