import IMS
import IMSCore
import MATSignal
import MATTesting
import MappingMemory
import Testing

@testable import IMSCluster

/// One rule, three places: what a core holds, what SQLite keeps and what etcd keeps must agree on which of two records is newer
/// (`RecordVersion`), since each takes over from the others at a start.
@Suite("Which record is newer, in memory, SQLite and etcd")
struct VersionTests {
    /// Written one after the other about one HoA.
    private struct History {
        let records: [StoredMapping]
        /// Which of them must be taken.
        var taken: [Bool] = []
        var last: StoredMapping

        init(_ records: [StoredMapping]) throws {
            self.records = records
            last = try #require(records.first)
            for record in records {
                let isNewer = taken.isEmpty || record.certified.version.isNewer(than: last.certified.version)
                taken.append(isNewer)
                if isNewer { last = record }
            }
        }
    }

    /// All pairs of two keys, three beginnings and three sequences, and after each pair a third by chance.
    private func histories() throws -> [History] {
        var generator = SeededGenerator(seed: 6)
        var versions: [(seed: UInt8, notBefore: UInt64, sequence: UInt64)] = []
        for seed in [1, 2] as [UInt8] {
            for notBefore in [0, 1, 256] as [UInt64] {
                for sequence in [1, 255, 256] as [UInt64] { versions.append((seed, 1_790_000_000_000 + notBefore, sequence)) }
            }
        }
        var histories: [History] = []
        for first in versions {
            for second in versions {
                let third = versions[Int.random(in: 0..<versions.count, using: &generator)]
                let hoa = "10.0.\(histories.count / 250).\(1 + histories.count % 250)"
                histories.append(
                    try History(
                        [first, second, third].map {
                            try TestNode(hoa, seed: $0.seed, notBefore: $0.notBefore).stored($0.sequence)
                        }))
            }
        }
        return histories
    }

    /// Writes all, step by step, and compares what came of each with the rule.
    private func write(_ histories: [History], to store: any MappingStoring, _ told: Told) {
        var ticket: UInt64 = 0
        for step in 0..<3 {
            let firstTicket = ticket
            for history in histories {
                ticket += 1
                store.commit(StoreTicket(number: ticket), StoreChange(mapping: history.records[step]))
            }
            let count = Int(ticket)
            #expect(eventually(within: 60) { told.outcomes.count == count })
            var results: [UInt64: StoreOutcome.Result] = [:]
            for outcome in told.outcomes { results[outcome.ticket.number] = outcome.result }
            for (number, history) in histories.enumerated() {
                let record = history.records[step]
                // The same once more is "durable" to one store and "outrun by itself" to another.
                guard !history.records[..<step].contains(record) else { continue }
                let isTaken = results[firstTicket + UInt64(number) + 1] == .durable
                #expect(isTaken == history.taken[step], "\(history.records.prefix(step + 1).map(\.certified.version))")
            }
        }
    }

    @Test("Memory holds the newest of every history")
    func memory() throws {
        let histories = try histories()
        var configuration = IMSCoreConfiguration(served: [ServedPrefix(prefix: try #require(IPPrefix("10.0.0.0/8")))])
        configuration.limits.mappingsMax = 1000
        var core = try #require(
            IMSCore(
                configuration, cookieSecrets: [[UInt8](repeating: 7, count: 16)], clientSecret: [UInt8](repeating: 8, count: 16),
                random: SeededGenerator(seed: 1)))
        let now = Now(monotonic: .zero, wallMilliseconds: 1_790_000_000_000)
        for step in 0..<3 {
            _ = core.store(.changed(histories.map { StoreChange(mapping: $0.records[step]) }), now: now)
        }
        for history in histories { #expect(core.mapping(of: history.last.record.hoa) == history.last) }
    }

    @Test("SQLite keeps the newest of every history")
    func file() throws {
        let histories = try histories()
        let directory = try TemporaryDirectory()
        var configuration = IMSConfiguration()
        configuration.storePath = "\(directory.path)/ims.db"
        for isReading in [false, true] {
            let store = try configuration.openStore()
            let told = Told()
            store.start { told.add($0) }
            #expect(eventually { told.hasLoaded })
            if isReading { #expect(Set(told.loaded) == Set(histories.map(\.last))) } else { write(histories, to: store, told) }
            store.close()
        }
    }

    @Test(
        "etcd keeps the newest of every history",
        .enabled(if: EtcdMembers.obstacle == nil, "etcd is not installed; deploy/install-packages installs it"))
    func etcd() throws {
        let histories = try histories()
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let writer = try TestInstance(etcd.configuration())
        #expect(eventually { writer.told.hasLoaded })
        write(histories, to: writer.store, writer.told)
        let reader = try TestInstance(etcd.configuration())
        #expect(eventually(within: 60) { reader.told.hasLoaded })
        #expect(Set(reader.told.loaded) == Set(histories.map(\.last)))
    }
}
