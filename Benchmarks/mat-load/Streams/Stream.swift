import BenchSupport
import MATSignal

/// One kind of load. The generator's thread gives each its turn over and over: to send what is due and to take what has come.
protocol LoadStream: AnyObject {
    /// - Parameter now: nanoseconds of `Ticks.wall`.
    func turn(_ now: UInt64)
    /// Whether nothing more will come of it.
    var isDone: Bool { get }
}

/// Runs streams in the calling thread, without ever sleeping: a generator that sleeps measures its own waking up.
enum Generator {
    /// Until all are done, or the time is over.
    static func run(_ streams: [any LoadStream], until end: UInt64 = .max) {
        while true {
            let now = Ticks.wall()
            if now >= end { return }
            var isDone = true
            for stream in streams {
                stream.turn(now)
                if !stream.isDone { isDone = false }
            }
            if isDone { return }
        }
    }
}

/// How requests follow each other.
enum Pace: Sendable {
    /// Closed loop: so many without an answer at any time. Finds what a server can do.
    case window(Int)
    /// Open loop: so many a second whatever the server does, as a crowd of clients would. Finds what clients see.
    case rate(Double)
}

/// What came of requests of one kind.
struct Tally: Sendable {
    var sent: UInt64 = 0
    /// Final answers by code.
    var codes: [UInt64] = Array(repeating: 0, count: 256)
    /// Answers that were not final: cookies asked for, "try later" that was followed.
    var interim: [UInt64] = Array(repeating: 0, count: 256)
    var unanswered: UInt64 = 0
    var resent: UInt64 = 0
    var latency = LatencyHistogram()

    var answered: UInt64 { codes.reduce(0, &+) }
    var ok: UInt64 { codes[Int(ResponseCode.ok.rawValue)] }

    mutating func add(_ other: Tally) {
        sent &+= other.sent
        unanswered &+= other.unanswered
        resent &+= other.resent
        for code in codes.indices {
            codes[code] &+= other.codes[code]
            interim[code] &+= other.interim[code]
        }
        latency.add(other.latency)
    }
}
