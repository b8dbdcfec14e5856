import BenchSupport
import CLinux
import Glibc

/// One TCP connection as fast as one core carries it: the thread writes as much as the connection takes, then reads as much
/// as has arrived at the other host.
struct StreamTraffic {
    static let chunkOctets = 256 * 1024
    static let bufferOctets: Int32 = 4 << 20

    /// - Returns: the median over slices of 16 MiB, in bits per second, of the octets read.
    static func run(from sender: BenchSocket, to receiver: BenchSocket, seconds: Double) throws -> Double {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: chunkOctets, alignment: 4096)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 0x5A, count: chunkOctets)
        let end = Ticks.wall() + UInt64(seconds * 1e9)
        // A fifth of the time for the window to open.
        let warm = Ticks.wall() + UInt64(seconds * 0.2e9)
        var rates: [Double] = []
        var sliceOctets = 0
        var sliceStart = Ticks.wall()
        var idleSince = sliceStart
        while true {
            let now = Ticks.wall()
            if now >= end { break }
            var moved = false
            if send(sender.descriptor, buffer, chunkOctets, Int32(MSG_NOSIGNAL)) > 0 {
                moved = true
            } else if errno != EAGAIN {
                throw BenchError("TCP send: errno \(errno)")
            }
            while true {
                let count = recv(receiver.descriptor, buffer, chunkOctets, 0)
                if count <= 0 { break }
                moved = true
                sliceOctets += count
            }
            if moved {
                idleSince = now
            } else {
                var wait = pollfd(fd: receiver.descriptor, events: Int16(POLLIN), revents: 0)
                poll(&wait, 1, 1)
                guard now - idleSince < 3_000_000_000 else { throw BenchError("the TCP connection stands still") }
            }
            if sliceOctets >= 16 << 20 {
                if now > warm { rates.append(Double(sliceOctets) * 8e9 / Double(Ticks.wall() - sliceStart)) }
                sliceOctets = 0
                sliceStart = Ticks.wall()
            }
        }
        if rates.isEmpty { rates.append(Double(sliceOctets) * 8e9 / Double(Ticks.wall() - sliceStart)) }
        return rates.median
    }
}

/// One datagram to the other host and back, over and over.
struct RoundTrips {
    static let payloadOctets = 32
    static let patienceMilliseconds: Int32 = 200

    struct Outcome {
        var median: Double
        var p99: Double
    }

    /// - Returns: nanoseconds from the call that sends to the return of the one that receives the answer, both hosts' calls included.
    static func run(_ mn: BenchSocket, _ cn: BenchSocket, seconds: Double) throws -> Outcome {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: payloadOctets, alignment: 64)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 0x5A, count: payloadOctets)
        var times: [Double] = []
        times.reserveCapacity(Int(seconds * 200_000))
        let end = Ticks.wall() + UInt64(seconds * 1e9)
        var lost = 0
        repeat {
            let start = Ticks.wall()
            guard try pass(mn, cn, buffer), try pass(cn, mn, buffer) else {
                lost += 1
                guard lost < 5 else { throw BenchError("no answers arrive") }
                continue
            }
            times.append(Double(Ticks.wall() - start))
        } while Ticks.wall() < end || times.isEmpty
        return Outcome(median: times.median, p99: times.quantile(0.99))
    }

    private static func pass(_ from: BenchSocket, _ to: BenchSocket, _ buffer: UnsafeMutableRawPointer) throws -> Bool {
        guard send(from.descriptor, buffer, payloadOctets, 0) == payloadOctets else { throw BenchError("send: errno \(errno)") }
        while recv(to.descriptor, buffer, payloadOctets, 0) != payloadOctets {
            // In the kernel's paths it has arrived by now; through another process it takes a while.
            var wait = pollfd(fd: to.descriptor, events: Int16(POLLIN), revents: 0)
            if poll(&wait, 1, patienceMilliseconds) == 0 { return false }
        }
        return true
    }
}
