import BenchSupport
import Foundation
import SeededRandom

/// One cluster of IMS instances under load, event by event, with the times that were measured: what utilisation alone does not tell.
///
/// ```
///   updates ──► verifier threads (one queue, so many servers) ──► store (all that waits in one commit, up to a bound) ──► ack, pushes
///   queries ──► worker of the socket that the sender's port hashes to (a queue each) ──► answer
/// ```
/// Arrivals are Poisson; a burst adds a crowd that moves within seconds. Updates that find as many waiting as the server holds are told
/// to come later (code 7), and do, a second later.
struct ClusterSimulation {
    struct Setting: Codable {
        var seconds = 20.0
        /// Arrivals a second outside of bursts.
        var updatesPerSecond: Double
        var queriesPerSecond: Double
        /// A crowd that moves within `burstSeconds`, in the middle.
        var burstNodes = 0
        var burstSeconds = 10.0
        var instances = 3
        /// Of each instance.
        var verifierCores: Int
        var workerCores: Int
        var verificationSeconds: Double
        var querySeconds: Double
        /// A commit takes this long and so much more for each record.
        var commitSeconds: Double
        var commitSecondsEach: Double
        var commitRecordsMax = 1000
        /// Updates of an instance that may wait for their verification or commit.
        var waitingMax = 16_384
    }

    struct Outcome: Codable {
        var updates: LatencySummary
        var queries: LatencySummary
        var toldToComeLater: Int
        /// Updates that were told so more often than a node asks.
        var lost: Int
        var verifierUtilisation: Double
        var workerUtilisation: Double
        /// Of the records that full commits would take: a store that is asked for little commits all the time, but little at a time.
        var storeUtilisation: Double
    }

    private static let laterMax = 20

    let setting: Setting

    func run(seed: UInt64) -> Outcome {
        var random = SeededGenerator(seed: seed)
        var updates = LatencyHistogram()
        var outcome = Outcome(
            updates: LatencySummary(updates), queries: LatencySummary(updates), toldToComeLater: 0, lost: 0, verifierUtilisation: 0,
            workerUtilisation: 0, storeUtilisation: 0)

        var arrivals = Self.poisson(setting.updatesPerSecond, setting.seconds, &random)
        let middle = setting.seconds / 2 - setting.burstSeconds / 2
        for _ in 0..<setting.burstNodes { arrivals.append(middle + Double.random(in: 0..<setting.burstSeconds, using: &random)) }
        simulateUpdates(arrivals.sorted(), &updates, &outcome)

        let workers = setting.instances * setting.workerCores
        var queries = LatencyHistogram()
        var busy = 0.0
        // The workers are alike and independent: one of them, at its share of the arrivals, is all of them.
        var free = 0.0
        for arrival in Self.poisson(setting.queriesPerSecond / Double(workers), min(setting.seconds, 5), &random) {
            free = max(free, arrival) + setting.querySeconds
            busy += setting.querySeconds
            queries.record(UInt64((free - arrival) * 1e9))
        }
        outcome.workerUtilisation = busy / min(setting.seconds, 5)
        outcome.updates = LatencySummary(updates)
        outcome.queries = LatencySummary(queries)
        return outcome
    }

    /// Requests in time: each instance's verifiers, then the one store that all instances share.
    private func simulateUpdates(_ arrivals: [Double], _ latency: inout LatencyHistogram, _ outcome: inout Outcome) {
        struct Update {
            var first: Double
            var at: Double
            var refusals: Int
        }
        var pending = Array(arrivals.map { Update(first: $0, at: $0, refusals: 0) }.reversed())
        var later: [Update] = []
        var nextLater = 0
        var freeAt = Array(repeating: Array(repeating: 0.0, count: setting.verifierCores), count: setting.instances)
        var instance = 0
        var storeFree = 0.0
        var waiting: [(ready: Double, first: Double)] = []
        var verified = 0.0
        var committed = 0

        func commit(until time: Double) {
            while let earliest = waiting.first?.ready {
                let start = max(storeFree, earliest)
                guard start <= time else { return }
                let count = min(setting.commitRecordsMax, waiting.prefix { $0.ready <= start }.count)
                let taken = setting.commitSeconds + Double(count) * setting.commitSecondsEach
                storeFree = start + taken
                committed += count
                for item in waiting.prefix(count) { latency.record(UInt64(max(0, storeFree - item.first) * 1e9)) }
                waiting.removeFirst(count)
            }
        }

        while true {
            var update: Update
            if nextLater < later.count, pending.last.map({ $0.at > later[nextLater].at }) ?? true {
                update = later[nextLater]
                nextLater += 1
            } else if let next = pending.popLast() {
                update = next
            } else {
                break
            }
            commit(until: update.at)
            instance = (instance + 1) % setting.instances
            // What is verified or waits for it here, and this instance's share of what waits for the store; what is there twice is little.
            let verifying = freeAt[instance].reduce(0) { $0 + max(0, $1 - update.at) } / setting.verificationSeconds
            if Int(verifying) + waiting.count / setting.instances >= setting.waitingMax {
                outcome.toldToComeLater += 1
                update.refusals += 1
                update.at += 1
                if update.refusals > Self.laterMax { outcome.lost += 1 } else { later.append(update) }
                continue
            }
            let core = freeAt[instance].indices.min { freeAt[instance][$0] < freeAt[instance][$1] } ?? 0
            let ready = max(freeAt[instance][core], update.at) + setting.verificationSeconds
            freeAt[instance][core] = ready
            verified += setting.verificationSeconds
            // Nearly in order already: instances differ by little.
            let place = waiting.lastIndex { $0.ready <= ready }.map { $0 + 1 } ?? 0
            waiting.insert((ready, update.first), at: place)
        }
        commit(until: .infinity)
        outcome.verifierUtilisation = verified / (setting.seconds * Double(setting.instances * setting.verifierCores))
        let most = Double(setting.commitRecordsMax) / (setting.commitSeconds + Double(setting.commitRecordsMax) * setting.commitSecondsEach)
        outcome.storeUtilisation = Double(committed) / setting.seconds / most
    }

    private static func poisson(_ rate: Double, _ seconds: Double, _ random: inout SeededGenerator) -> [Double] {
        guard rate > 0 else { return [] }
        var times: [Double] = []
        var time = 0.0
        while true {
            time += -log(1 - Double.random(in: 0..<1, using: &random)) / rate
            if time >= seconds { return times }
            times.append(time)
        }
    }
}
