import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// A path that carries packets up to a size and answers after a while, and loses those that it is told to.
private struct Wire {
    var carries: UInt32
    var roundTrip: Int64 = 40
    var isSilent = false
    var now: Int64 = 0
    var mtu = PathMTU()
    var asked: [UInt32] = []
    var changes: [UInt32] = []
    private var answers: [(at: Int64, size: UInt32, sentAt: Int64)] = []
    /// Large probes to be lost from now on, whatever their size.
    var lost = 0

    init(carries: UInt32) { self.carries = carries }

    mutating func take(_ actions: [PathMTU.Action]) {
        for action in actions {
            switch action {
            case .changed: changes.append(mtu.largest)
            case .ask(let size):
                asked.append(size)
                guard !isSilent else { continue }
                if size <= carries {
                    if lost > 0 { lost -= 1 } else { answers.append((now + roundTrip, size, now)) }
                }
                answers.append((now + roundTrip, 0, now))
            }
        }
    }

    /// Each time packets are told of.
    var packets: UInt64 = 10

    mutating func use() { take(mtu.use(packets: packets, time(now))) }

    /// Lets time pass, with packets once a second if they go there.
    mutating func run(until end: Int64, inUse: Bool = true) {
        while now < end {
            now += 1
            while let index = answers.firstIndex(where: { $0.at <= now }) {
                let answer = answers.remove(at: index)
                take(mtu.answered(answer.size, sentAt: time(answer.sentAt), time(now)))
            }
            if inUse, now % 1000 == 0 { use() }
            take(mtu.takeDue(time(now)))
        }
    }
}

@Suite("How large packets in datagrams may be") struct PathMTUTests {
    @Test(
        "The size rises to what the path carries within seconds, and to no more",
        arguments: [(1280, 1280), (1371, 1280), (1372, 1372), (1399, 1372), (1424, 1424), (1471, 1452), (1472, 1472), (9000, 1472)]
            as [(UInt32, UInt32)])
    func rises(carries: UInt32, wanted: UInt32) {
        var wire = Wire(carries: carries)
        wire.use()
        wire.run(until: 2000)
        #expect(wire.mtu.largest == wanted && !wire.mtu.isTrying, "\(wire.asked)")
        #expect(wire.mtu.failed == (wanted == 1472 ? nil : PathMTU.sizes.first { $0 > carries }))
    }

    @Test("Each size is asked for three times, and once more only after 10 minutes")
    func tries() {
        var wire = Wire(carries: 1400)
        wire.use()
        wire.run(until: 599_000)
        #expect(wire.asked.filter { $0 == 1424 }.count == 3 && wire.mtu.largest == 1400)
        wire.carries = 1500
        wire.run(until: 605_000)
        #expect(wire.mtu.largest == 1472)
    }

    @Test("Where 1280 octets do not pass, datagrams are cut up, until they do", arguments: [1096, 1279] as [UInt32])
    func narrow(carries: UInt32) {
        var wire = Wire(carries: carries)
        wire.use()
        wire.run(until: 1000)
        #expect(wire.mtu.largest == 1279 && wire.asked == [1280, 1280, 1280])
        wire.carries = 1500
        wire.run(until: 610_000)
        #expect(wire.mtu.largest == 1472)
    }

    @Test("A path that becomes narrower is found out at once when somebody says so, else within 15 s of use; then upwards again")
    func narrowing() {
        for isTold in [true, false] {
            var wire = Wire(carries: 1472)
            wire.use()
            wire.run(until: 5000)
            wire.carries = 1372
            let began = wire.now
            if isTold { wire.take(wire.mtu.doubt(time(wire.now))) }
            wire.changes = []
            wire.run(until: began + (isTold ? 250 : 16_000))
            #expect(wire.changes.first == 1280, "\(isTold) \(wire.asked)")
            wire.run(until: wire.now + 1000)
            #expect(wire.mtu.largest == 1372)
        }
    }

    @Test("While many packets go it is found out within 3.2 s, though others come back; that costs a large probe for 200 of them")
    func busy() {
        var wire = Wire(carries: 1472)
        wire.packets = 500
        wire.use()
        wire.run(until: 20_000)
        #expect(wire.mtu.largest == 1472 && wire.asked.count <= 6 + 10, "\(wire.asked.count)")
        wire.carries = 1372
        wire.run(until: 23_200)
        #expect(wire.mtu.largest <= 1372, "\(wire.asked)")
        wire.run(until: 24_000)
        #expect(wire.mtu.largest == 1372)
    }

    @Test("What anybody says costs no more than a few probes, and changes nothing while full packets pass")
    func forgedErrors() {
        var wire = Wire(carries: 1472)
        wire.use()
        wire.run(until: 5000)
        let before = wire.asked.count
        for _ in 0..<1000 {
            wire.take(wire.mtu.doubt(time(wire.now)))
            wire.run(until: wire.now + 10)
        }
        #expect(wire.mtu.largest == 1472 && wire.changes == [1372, 1400, 1424, 1452, 1472])
        #expect(wire.asked.count - before <= 7, "\(wire.asked.count - before) in 10 s")
    }

    @Test("Silence says nothing of sizes: the path keeps its own")
    func silence() {
        var wire = Wire(carries: 1472)
        wire.use()
        wire.run(until: 5000)
        wire.isSilent = true
        wire.take(wire.mtu.doubt(time(wire.now)))
        wire.run(until: 60_000)
        #expect(wire.mtu.largest == 1472)
        var silent = Wire(carries: 1472)
        silent.isSilent = true
        silent.use()
        silent.run(until: 15_000)
        #expect(silent.mtu.largest == 1280 && silent.asked.count == 3)
        silent.isSilent = false
        silent.run(until: 40_000)
        #expect(silent.mtu.largest == 1472)
        // An agent of an earlier version knows no such probes.
        var old = Wire(carries: 1472)
        old.isSilent = true
        old.use()
        old.run(until: 3_600_000)
        #expect(old.asked.count <= 36 && old.mtu.largest == 1280, "\(old.asked.count) in an hour")
    }

    @Test("One loss, and two, change nothing; an answer that comes late counts", arguments: [1, 2])
    func loss(_ count: Int) {
        var wire = Wire(carries: 1472)
        wire.use()
        wire.run(until: 5000)
        wire.lost = count
        wire.take(wire.mtu.doubt(time(wire.now)))
        wire.run(until: 8000)
        #expect(wire.mtu.largest == 1472)
        var slow = Wire(carries: 1472)
        slow.roundTrip = 1500
        slow.use()
        slow.run(until: 20_000)
        #expect(slow.mtu.largest == 1472, "\(slow.asked)")
    }

    @Test("Without packets nothing is asked; the next one asks whether the size still passes")
    func idle() {
        var wire = Wire(carries: 1472)
        wire.use()
        wire.run(until: 5000)
        wire.run(until: 60_000, inUse: false)
        let count = wire.asked.count
        wire.run(until: 3_000_000, inUse: false)
        #expect(wire.asked.count == count && wire.mtu.due == nil)
        wire.carries = 1400
        wire.use()
        wire.run(until: wire.now + 1000)
        #expect(wire.mtu.largest == 1400)
    }

    @Test("Peers behind one endpoint share its path, those behind a relay have one each; what nobody uses is forgotten")
    func shared() {
        var paths = PathMTUs(pathsMax: 2)
        let own = Endpoint(ip("10.1.2.3"), port: 6289)
        let far = Endpoint(ip("192.0.2.9"), port: 40_001)
        let peers = [home("203.0.113.1"), home("203.0.113.2"), home("203.0.113.3")]
        let key = PathMTUs.Key(own: own, far: far, peer: nil)
        #expect(paths.use(key, by: peers[0], time(0)) == [.ask(peers[0], key, 1280)])
        #expect(paths.use(key, by: peers[1], time(0)) == [])
        #expect(paths.count == 1)
        #expect(paths.answered(1280, by: peers[0], from: own, to: far, sentAt: time(0), time(40)) == [.ask(peers[0], key, 1372)])
        #expect(
            paths.answered(1372, by: peers[0], from: own, to: far, sentAt: time(40), time(80)) == [
                .changed([peers[0], peers[1]]), .ask(peers[0], key, 1400),
            ])
        // Over another path than the one in use.
        #expect(paths.answered(1400, by: peers[0], from: own, to: Endpoint(far.address, port: 1), sentAt: time(80), time(90)) == [])
        let relayed = peers.map { PathMTUs.Key(own: own, far: far, peer: $0) }
        #expect(paths.use(relayed[2], by: peers[2], time(0)) == [.ask(peers[2], relayed[2], 1280)])
        // There is room for two.
        #expect(paths.use(relayed[0], by: peers[0], time(0)) == [] && paths.key(of: peers[0]) == nil)
        paths.remove(peers[1])
        paths.remove(peers[2])
        #expect(paths.count == 0 && paths.nextDue == nil)
    }

    @Test("What the kernel goes on with for an earlier run says of its path what passes, for two minutes and until the peer takes another one")
    func former() {
        let own = Endpoint(ip("2001:db8:1::3"), port: 6289)
        let (far, other) = (Endpoint(ip("2001:db8:2::9"), port: 6289), Endpoint(ip("2001:db8:2::9"), port: 6290))
        let (home, peer) = (home("203.0.113.9"), home("203.0.113.1"))
        let (key, otherKey) = (PathMTUs.Key(own: own, far: far, peer: nil), PathMTUs.Key(own: own, far: other, peer: nil))
        func made() -> PathMTUs {
            var paths = PathMTUs(pathsMax: 2)
            paths.adopt([HomePair(own: home, peer: peer): Carriage(.encapsulated(own: own, peer: far), largest: 1400)], time(0))
            return paths
        }
        var paths = made()
        #expect(!paths.needsSum(key, of: peer, time(0)) && paths.largest(key, of: peer, time(0)) == 1400)
        #expect(paths.needsSum(otherKey, of: peer, time(0)) && paths.largest(otherKey, of: peer, time(0)) == nil)
        #expect(paths.needsSum(key, of: home, time(0)))
        #expect(paths.needsSum(key, of: peer, time(120_000)))
        // Both are asked about at once.
        #expect(paths.use(key, by: peer, time(10)) == [.ask(peer, key, 1400), .askWithoutSum(peer, key)])
        #expect(!paths.needsSum(key, of: peer, time(200_000)) && paths.largest(key, of: peer, time(200_000)) == 1400)
        #expect(paths.answered(1400, by: peer, from: own, to: far, sentAt: time(10), time(50)) == [])
        #expect(paths.takeDue(time(50)) == [.ask(peer, key, 1424)])
        paths = made()
        #expect(paths.use(otherKey, by: peer, time(0)) == [.ask(peer, otherKey, 1280), .askWithoutSum(peer, otherKey)])
        #expect(paths.needsSum(otherKey, of: peer, time(0)) && paths.needsSum(key, of: peer, time(0)))
    }
}
