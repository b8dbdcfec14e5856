import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("Unknown sources of what comes in datagrams") struct CallersTests {
    private let place = Callers.Place(endpoint: Endpoint(ip("192.0.2.100"), port: 40_000), own: ip("198.18.0.10"))
    private func caller(_ number: Int) -> HomeAddress { home("203.0.113.\(number)") }

    @Test("Each is asked about once in 10 s, 20 a second in all, so many at a time")
    func bounds() {
        var callers = Callers(perSecond: 20, askedMax: 30)
        let first = callers.called(caller(1), from: place, time(0))
        let again = callers.called(caller(1), from: place, time(9999))
        let later = callers.called(caller(1), from: place, time(10_000))
        #expect(first && !again && later)
        let burst = (2...200).count { callers.called(caller($0), from: place, time(11_000)) }
        #expect(burst == 20)
        let more = (2...200).count { callers.called(caller($0), from: place, time(12_000)) }
        #expect(more == 9 && callers.count == 30)
        // Whose time is over makes room.
        let after = (100...200).count { callers.called(caller($0), from: place, time(30_000)) }
        #expect(after == 20)
    }

    @Test("Where it called from is told when it is known who it is, once")
    func end() {
        var callers = Callers(perSecond: 20, askedMax: 30)
        _ = callers.called(caller(1), from: place, time(0))
        #expect(callers.contains(caller(1)))
        let (known, twice) = (callers.end(caller(1)), callers.end(caller(1)))
        #expect(known == place && twice == nil && !callers.contains(caller(1)))
    }
}
