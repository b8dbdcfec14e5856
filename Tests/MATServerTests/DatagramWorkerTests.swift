import CLinux
import Glibc
import MATRuntime
import MATSignal
import Synchronization
import Testing

@testable import MATServer

/// Answers each datagram with its own octets, once for each of the first octet's worth; passes those that begin with zero to a ring.
private final class Echo: DatagramServing, @unchecked Sendable {
    let ring = DatagramRing()
    let wakeup: LoopWakeup
    let isRunning = Atomic<Bool>(false)
    private var batch = DatagramBatch(answersPerDatagramMax: 8)

    let turns = Atomic<Int>(0)
    private let patience: Int32

    init(_ wakeup: LoopWakeup, patience: Int32 = -1) {
        self.wakeup = wakeup
        self.patience = patience
    }

    func turn(at now: MonotonicTime) -> Int32 {
        turns.wrappingAdd(1, ordering: .sequentiallyConsistent)
        return patience
    }

    deinit { batch.deallocate() }

    func begin() -> Bool {
        isRunning.store(true, ordering: .sequentiallyConsistent)
        return true
    }

    func end() { isRunning.store(false, ordering: .sequentiallyConsistent) }

    func serve(_ socket: Int32) -> Int {
        let count = batch.receive(socket)
        for index in 0..<count {
            let (octets, source, local) = batch.datagram(index)
            guard let first = octets.first, first > 0 else {
                if ring.put(octets, from: source, to: local) { wakeup.signal() }
                continue
            }
            for answer in 0..<Int(min(first, 8)) {
                let room = batch.answerRoom + answer * DatagramBatch.octetsPerDatagram
                UnsafeMutableRawBufferPointer(start: room, count: octets.count).copyMemory(from: octets)
                batch.lengths[answer] = Int32(octets.count)
            }
            #expect(batch.add(Int(min(first, 8)), to: index, socket) == 0)
        }
        #expect(batch.send(socket) == 0)
        return count
    }
}

@Suite("Workers")
struct DatagramWorkerTests {
    private let here = address("127.0.0.1")

    private func socket() throws -> BoundSocket {
        var options = BoundSocket.Options()
        options.waits = true
        return try BoundSocket(port: 0, address: here, options: options)
    }

    /// Datagrams from this socket, until so many came or half a minute has passed.
    private func receive(_ descriptor: Int32, _ count: Int) -> [[UInt8]] {
        var all: [[UInt8]] = []
        while all.count < count {
            var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&polled, 1, 30_000) > 0 else { break }
            var buffer = [UInt8](repeating: 0, count: 2048)
            let received = recv(descriptor, &buffer, buffer.count, 0)
            if received >= 0 { all.append(Array(buffer.prefix(received))) }
        }
        return all
    }

    @Test("A worker answers what comes to its sockets, hands the rest on, and ends when all that has arrived is served")
    func worker() throws {
        let wakeup = try LoopWakeup()
        let echo = Echo(wakeup)
        let sockets = [try socket(), try socket()]
        let worker = try DatagramWorker(sockets: sockets, service: echo)
        let client = try socket()
        try worker.start()
        var expected: [[UInt8]] = []
        for number in 0..<200 {
            let server = sockets[number % 2]
            let datagram: [UInt8] = [UInt8(number % 4), UInt8(number)]
            #expect(client.send(datagram, from: nil, to: Endpoint(here, port: try port(server))) == nil)
            expected += [[UInt8]](repeating: datagram, count: number % 4)
            // Never more at a time than the client's buffer holds.
            if number % 50 == 49 {
                let answers = receive(client.descriptor, expected.count)
                #expect(answers.sorted(by: { $0.lexicographicallyPrecedes($1) }) == expected.sorted(by: { $0.lexicographicallyPrecedes($1) }))
                expected = []
            }
        }
        worker.stop()
        let isRunning = echo.isRunning.load(ordering: .sequentiallyConsistent)
        #expect(!isRunning)
        var polled = pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)
        #expect(poll(&polled, 1, 0) == 1, "the loop was woken")
        wakeup.clear()
        #expect(poll(&polled, 1, 0) == 0)
        var passed = 0
        while echo.ring.take(
            10,
            { datagram, _, source, local in
                #expect(datagram.first == 0 && source.address == here && local == here)
                passed += 1
            })
        {}
        #expect(passed == 50)
    }

    @Test("A wake-up counts once until it is cleared, and none is lost between threads")
    func wakeups() throws {
        let wakeup = try LoopWakeup()
        let given = Atomic<Int>(0)
        let count = 20_000
        let signals = Background {
            for _ in 0..<count {
                given.wrappingAdd(1, ordering: .sequentiallyConsistent)
                wakeup.signal()
            }
            return 0
        }
        var seen = 0
        while seen < count {
            var polled = pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&polled, 1, 30_000) == 1 else { break }
            wakeup.clear()
            seen = given.load(ordering: .sequentiallyConsistent)
        }
        _ = signals.wait()
        #expect(seen == count, "what was given after the last wake-up brought another")
    }

    @Test("A worker that wants to is heard of in time, though nothing comes")
    func turns() throws {
        let echo = Echo(try LoopWakeup(), patience: 10)
        let client = try socket()
        let sockets = [try socket()]
        let worker = try DatagramWorker(sockets: sockets, service: echo)
        try worker.start()
        // The first turn comes after the first datagram.
        #expect(client.send([1], from: nil, to: Endpoint(here, port: try port(sockets[0]))) == nil)
        for _ in 0..<1000 where echo.turns.load(ordering: .sequentiallyConsistent) < 5 { usleep(10_000) }
        worker.stop()
        #expect(echo.turns.load(ordering: .sequentiallyConsistent) >= 5)
    }

    private func port(_ socket: BoundSocket) throws -> UInt16 {
        var name = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let result = withUnsafeMutablePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(socket.descriptor, $0, &length) }
        }
        try #require(result == 0)
        return UInt16(bigEndian: name.sin6_port)
    }
}
