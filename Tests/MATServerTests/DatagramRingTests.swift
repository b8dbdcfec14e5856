import Glibc
import MATSignal
import Synchronization
import Testing

@testable import MATServer

@Suite("The ring between a worker and the core")
struct DatagramRingTests {
    private let local = address("203.0.113.1")

    @Test("A full ring takes nothing and loses nothing of what it has, in order")
    func ring() {
        let ring = DatagramRing()
        var put = 0
        for number in 0..<DatagramRing.datagramsMax + 10 {
            let datagram = [UInt8(number & 0xFF), UInt8(number >> 8)]
            if datagram.withUnsafeBytes({ ring.put($0, from: Endpoint(address("192.0.2.7"), port: UInt16(number)), to: local) }) {
                put += 1
            }
        }
        #expect(put == DatagramRing.datagramsMax)
        var next = 0
        while ring.take(
            100,
            { datagram, _, source, local in
                #expect(datagram == [UInt8(next & 0xFF), UInt8(next >> 8)])
                #expect(source == Endpoint(address("192.0.2.7"), port: UInt16(next)) && local == local)
                next += 1
            })
        {}
        #expect(next == DatagramRing.datagramsMax)
    }

    @Test("What is longer than a datagram of the protocol, or nothing at all, is not taken, and the longest comes out whole")
    func lengths() {
        let ring = DatagramRing()
        let source = Endpoint(address("2001:db8::7"), port: 6289)
        func put(_ octets: [UInt8], isPutOff: Bool = false) -> Bool {
            octets.withUnsafeBytes { ring.put($0, isPutOff: isPutOff, from: source, to: local) }
        }
        let longest = (0..<SignalDatagram.octetsMax).map { UInt8(truncatingIfNeeded: $0) }
        #expect(!put(longest + [0]))
        #expect(!ring.put(UnsafeRawBufferPointer(start: nil, count: 0), from: source, to: local))
        #expect(put(longest, isPutOff: true) && put([1]))
        var taken: [([UInt8], Bool)] = []
        #expect(!ring.take(10) { datagram, isPutOff, _, _ in taken.append((datagram, isPutOff)) })
        #expect(taken.map(\.0) == [longest, [1]] && taken.map(\.1) == [true, false])
        #expect(!ring.take(10) { _, _, _, _ in Issue.record("the ring is empty") })
    }

    @Test("While one thread puts in and another takes out, every datagram that was taken in comes out once, whole and in order")
    func twoThreads() {
        let ring = DatagramRing()
        let count = 50_000
        let source = Endpoint(address("192.0.2.7"), port: 6289)
        let puts = Background {
            var refused = 0
            for number in 0..<count {
                // As long as its number says, and full of it.
                let datagram = [UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 1 + number % 700)
                while !datagram.withUnsafeBytes({
                    ring.put(
                        $0, isPutOff: number % 3 == 0, from: Endpoint(source.address, port: UInt16(truncatingIfNeeded: number)), to: source.address)
                }) {
                    refused += 1
                    sched_yield()
                }
            }
            return refused
        }
        var next = 0
        while next < count {
            _ = ring.take(64) { datagram, isPutOff, from, _ in
                let isWhole = datagram.count == 1 + next % 700 && datagram.allSatisfy { $0 == UInt8(truncatingIfNeeded: next) }
                if !isWhole || isPutOff != (next % 3 == 0) || from.port != UInt16(truncatingIfNeeded: next) {
                    Issue.record("\(next) is torn or out of order")
                }
                next += 1
            }
        }
        _ = puts.wait()
        #expect(next == count && !ring.take(1) { _, _, _, _ in })
    }
}

/// A thread that computes something.
final class Background<Result: Sendable>: Sendable {
    private final class Start: Sendable {
        let body: @Sendable () -> Result
        let result: Mutex<Result?>
        init(_ body: @escaping @Sendable () -> Result) {
            self.body = body
            result = Mutex(nil)
        }
    }

    private let start: Start
    private let thread: pthread_t

    init(_ body: @escaping @Sendable () -> Result) {
        start = Start(body)
        var thread = pthread_t()
        let made = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                let run = Unmanaged<AnyObject>.fromOpaque(context).takeRetainedValue() as? any BackgroundRun
                run?.run()
                return nil
            }, Unmanaged<AnyObject>.passRetained(Run(start)).toOpaque())
        precondition(made == 0, "no thread")
        self.thread = thread
    }

    private final class Run: BackgroundRun {
        let start: Start
        init(_ start: Start) { self.start = start }
        func run() {
            let result = start.body()
            start.result.withLock { $0 = result }
        }
    }

    /// Waits for its end. Once.
    func wait() -> Result? {
        pthread_join(thread, nil)
        return start.result.withLock { $0 }
    }
}

private protocol BackgroundRun: AnyObject { func run() }
