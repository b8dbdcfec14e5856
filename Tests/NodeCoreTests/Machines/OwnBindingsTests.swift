import MATCore
import MATSignal
import MATTesting
import SeededRandom
import Testing

@testable import NodeCore

@Suite("Bindings at the own servers") struct OwnBindingsTests {
    private let hoa = home("198.51.100.1")
    private let moa = MobileAddress(ip("10.1.2.3"))
    private let server = Endpoint(ip("192.88.1.1"), port: SignalPort.ims)
    private let seen = Endpoint(ip("203.0.113.7"), port: 40_000)
    private let start = VirtualClock().time
    private var key: OwnBindings.Key { OwnBindings.Key(hoa: hoa, server: server) }

    private func bound() -> OwnBindings {
        var bindings = OwnBindings()
        let actions1 = bindings.need([key: moa], start)
        #expect(actions1 == [.bind(key, from: moa)])
        #expect(!bindings.isBound(key))
        let actions2 = answer(&bindings, .ok, seen, at: start)
        #expect(actions2 == [])
        #expect(bindings.isBound(key))
        return bindings
    }

    private func answer(_ bindings: inout OwnBindings, _ code: ResponseCode, _ seen: Endpoint?, granted: UInt32 = 120, at now: MonotonicTime)
        -> [OwnBindings.Action]
    {
        var random: any RandomNumberGenerator = SeededGenerator(seed: 1)
        return bindings.answered(key, code, seen: seen, granted: granted, random: &random, now)
    }

    @Test("A binding is refreshed every 25 s, less up to a tenth, and signed anew in time")
    func refreshes() throws {
        var bindings = bound()
        var signed: [Int64] = []
        var now = start
        for _ in 0..<60 {
            let due = try #require(bindings.due)
            #expect((.milliseconds(22_500) ... .seconds(25)).contains(due - now))
            now = due
            let actions = bindings.takeDue(now)
            if actions == [.bind(key, from: moa)] {
                signed.append((now - start).millisecondsSaturated / 1000)
            } else {
                #expect(actions == [.refresh(key, from: moa)])
            }
            #expect(bindings.due == nil)
            _ = answer(&bindings, .ok, seen, at: now)
        }
        let times = [0] + signed
        #expect(zip(times, times.dropFirst()).allSatisfy { $1 - $0 <= 600 } && signed.count >= 2)
    }

    @Test(
        "Before a translator that forgets sooner it is refreshed often enough, and hardly more often; a translator that starts anew changes little",
        arguments: [7, 12, 16, 20, 24])
    func pace(seconds: Int64) throws {
        var bindings = bound()
        var (now, port, used, losses) = (start, seen.port, start, [Int64]())
        func refresh(restarting: Bool = false) throws {
            now = try #require(bindings.due)
            _ = bindings.takeDue(now)
            if now - used > .seconds(seconds) || restarting {
                port += 1
                if !restarting { losses.append((now - start).components.seconds) }
            }
            used = now
            _ = answer(&bindings, .ok, Endpoint(seen.address, port: port), at: now)
        }
        while now - start < .seconds(1200) { try refresh() }
        // It is found out within some minutes; what is tried is in between what was too long and what was not.
        #expect(losses.count <= 6 && losses.allSatisfy { $0 < 600 }, "\(losses)")
        let interval = try #require(bindings.due) - now
        #expect(interval > .seconds(seconds) * 0.7 - .seconds(2) && interval <= .seconds(seconds), "\(interval)")
        try refresh(restarting: true)
        for _ in 0..<60 { try refresh() }
        #expect(try #require(bindings.due) - now > .seconds(seconds) * 0.7 - .seconds(2))
    }

    @Test("Restarts of a translator that keeps what it has do not make refreshes more frequent for good")
    func restarts() throws {
        var bindings = bound()
        var (now, port) = (start, seen.port)
        for restart in 0..<6 {
            for turn in 0..<20 {
                now = try #require(bindings.due)
                _ = bindings.takeDue(now)
                if turn == 0 { port += UInt16(restart + 1) }
                _ = answer(&bindings, .ok, Endpoint(seen.address, port: port), at: now)
            }
        }
        #expect(try #require(bindings.due) - now < .seconds(20), "it may be one that forgets")
        while now - start < .seconds(90_000) {
            now = try #require(bindings.due)
            _ = bindings.takeDue(now)
            _ = answer(&bindings, .ok, Endpoint(seen.address, port: port), at: now)
        }
        #expect(try #require(bindings.due) - now >= .milliseconds(22_500))
    }

    @Test("Of what was refreshed every 25 s a loss says nothing of the shorter interval that was found out meanwhile")
    func phases() throws {
        var bindings = bound()
        let other = OwnBindings.Key(hoa: hoa, server: Endpoint(ip("192.88.1.2"), port: SignalPort.ims))
        _ = bindings.need([key: moa, other: moa], start + .seconds(10))
        var random: any RandomNumberGenerator = SeededGenerator(seed: 1)
        func answerOther(_ bindings: inout OwnBindings, port: UInt16, at now: MonotonicTime) {
            _ = bindings.answered(other, .ok, seen: Endpoint(seen.address, port: port), granted: 120, random: &random, now)
        }
        answerOther(&bindings, port: 5000, at: start + .seconds(10))
        _ = bindings.takeDue(start + .seconds(25))
        _ = answer(&bindings, .ok, Endpoint(seen.address, port: 1), at: start + .seconds(25))
        _ = bindings.takeDue(start + .seconds(35))
        answerOther(&bindings, port: 5001, at: start + .seconds(35))
        _ = answer(&bindings, .ok, Endpoint(seen.address, port: 1), at: start + .seconds(35))
        let due = try #require(bindings.due)
        #expect((.milliseconds(11_250) ... .milliseconds(12_500)).contains(due - (start + .seconds(35))), "half of 25 s, and not half of that")
    }

    @Test("A server that forgot it gets it again at once; one that refuses is asked after 1, 2, 4 s")
    func forgotten() {
        var bindings = bound()
        _ = bindings.takeDue(start + .seconds(25))
        let actions3 = answer(&bindings, .notFound, seen, at: start + .seconds(25))
        #expect(actions3 == [.bind(key, from: moa)])
        #expect(!bindings.isBound(key))
        var pauses: [Int64] = []
        var now = start + .seconds(25)
        for _ in 0..<3 {
            let actions4 = answer(&bindings, .notFound, seen, at: now)
            #expect(actions4 == [])
            pauses.append(((bindings.due ?? now) - now).millisecondsSaturated / 1000)
            now = bindings.due ?? now
            let actions5 = bindings.takeDue(now)
            #expect(actions5 == [.bind(key, from: moa)])
        }
        #expect(pauses == [1, 2, 4])
    }

    @Test("To be seen elsewhere than before is told, also when it was signed anew meanwhile")
    func rebound() {
        var bindings = bound()
        _ = bindings.takeDue(start + .seconds(25))
        let other = Endpoint(seen.address, port: 1)
        let actions6 = answer(&bindings, .ok, other, at: start + .seconds(25))
        #expect(actions6 == [.moved(key, moa)])
        _ = bindings.doubt(start + .seconds(26))
        _ = answer(&bindings, .notFound, nil, at: start + .seconds(26))
        let actions7 = answer(&bindings, .ok, seen, at: start + .seconds(27))
        #expect(actions7 == [.moved(key, moa)])
    }

    @Test("A doubt soon after one in vain is followed when the pause is over; after one that was right, at once")
    func doubts() {
        var bindings = bound()
        let first = bindings.doubt(start + .seconds(1))
        #expect(first == [.refresh(key, from: moa)])
        _ = answer(&bindings, .ok, seen, at: start + .seconds(1))
        // Half a second, a second, and two from then on.
        var last: Int64 = 1000
        for pause: Int64 in [500, 1000, 2000, 2000] {
            for again in [last + 1, last + 100] {
                let none = bindings.doubt(start + .milliseconds(again))
                #expect(none.isEmpty)
            }
            last += pause
            #expect(bindings.due == start + .milliseconds(last))
            let next = bindings.takeDue(start + .milliseconds(last))
            #expect(next == [.refresh(key, from: moa)])
            _ = answer(&bindings, .ok, seen, at: start + .milliseconds(last))
        }
        // When nobody has doubted for a while it is followed at once, and the pause is short again.
        let later = bindings.doubt(start + .seconds(10))
        #expect(later == [.refresh(key, from: moa)])
        _ = answer(&bindings, .ok, seen, at: start + .seconds(10))
        let soon = bindings.doubt(start + .milliseconds(10_600))
        #expect(soon == [.refresh(key, from: moa)])
        let bound = answer(&bindings, .notFound, nil, at: start + .seconds(11))
        #expect(bound == [.bind(key, from: moa)])
        _ = answer(&bindings, .ok, Endpoint(seen.address, port: 1), at: start + .seconds(11))
        let third = bindings.doubt(start + .milliseconds(11_100))
        #expect(third == [.refresh(key, from: moa)])
    }

    @Test("What is not needed any more ends; another MoA binds anew")
    func needs() {
        var bindings = bound()
        let other = MobileAddress(ip("10.1.2.4"))
        let actions8 = bindings.need([key: moa], start)
        #expect(actions8 == [])
        let actions9 = bindings.need([key: other], start)
        #expect(actions9 == [.bind(key, from: other)])
        let actions10 = bindings.need([:], start)
        #expect(actions10 == [.stop(key)])
        #expect(bindings.count == 0)
    }

    @Test("A server is told of a binding that is needed no more, a moment later and only if it is not needed again, and only if it held it")
    func left() {
        var bindings = bound()
        _ = bindings.need([:], start)
        #expect(bindings.due == start + OwnBindings.lingerTime)
        let early = bindings.takeDue(start + (OwnBindings.lingerTime - .milliseconds(1)))
        #expect(early == [])
        let late = bindings.takeDue(start + OwnBindings.lingerTime)
        #expect(late == [.end(key, heldFrom: moa)])
        #expect(bindings.due == nil)
        bindings = bound()
        _ = bindings.need([:], start)
        _ = bindings.need([key: moa], start + .seconds(1))
        let needed = bindings.takeDue(start + .seconds(60))
        #expect(needed == [])
        // Asked for, and not granted yet.
        bindings = OwnBindings()
        _ = bindings.need([key: moa], start)
        _ = bindings.need([:], start)
        #expect(bindings.due == nil)
    }

    @Test("Bindings at several servers are refreshed together, whenever each of them was granted")
    func together() throws {
        var bindings = OwnBindings()
        let servers = (1...4).map { OwnBindings.Key(hoa: hoa, server: Endpoint(ip("192.88.1.\($0)"), port: SignalPort.ims)) }
        var needed: [OwnBindings.Key: MobileAddress] = [:]
        var random: any RandomNumberGenerator = SeededGenerator(seed: 3)
        for (number, server) in servers.enumerated() {
            needed[server] = moa
            let now = start + .milliseconds(700 * Int64(number))
            _ = bindings.need(needed, now)
            _ = bindings.answered(server, .ok, seen: seen, granted: 120, random: &random, now)
        }
        for round in 0..<10 {
            let now = try #require(bindings.due)
            let actions = bindings.takeDue(now)
            #expect(Set(actions) == Set(servers.map { .refresh($0, from: moa) }), "round \(round): \(actions)")
            for server in servers { _ = bindings.answered(server, .ok, seen: seen, granted: 120, random: &random, now) }
        }
    }

    @Test("A node that ends tells each server that holds a binding, and each that it has left a moment ago")
    func ends() {
        var bindings = bound()
        let other = OwnBindings.Key(hoa: hoa, server: Endpoint(ip("192.88.1.2"), port: SignalPort.relay))
        _ = bindings.need([key: moa, other: moa], start)
        let some = bindings.leaveAll()
        #expect(some == [.end(key, heldFrom: moa)])
        bindings = bound()
        _ = bindings.need([:], start)
        let all = bindings.leaveAll()
        #expect(all == [.end(key, heldFrom: moa)] && bindings.due == nil)
        let none = bindings.leaveAll()
        #expect(none == [])
    }
}
