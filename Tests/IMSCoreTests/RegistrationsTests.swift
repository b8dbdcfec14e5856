import MATSignal
import MATTesting
import MappingMemory
import Testing

@testable import IMSCore

@Suite("Registrations: what is held and what is on its way")
struct RegistrationsTests {
    private let configuration = Sample.configuration()
    private let first = Sample.own.record([ip("198.51.100.1")], sequence: Sample.wall)
    private let second = Sample.own.record([ip("198.51.100.2")], sequence: Sample.wall + 1)
    private var prefix: IPPrefix { first.record.prefix }

    @Test("Of two writes of one HoA the newest is what counts, until each is finished")
    func newest() {
        var registrations = Registrations(configuration)
        let one = registrations.begin(PendingWrite(mapping: Sample.stored(first)), Sample.now())
        let two = registrations.begin(PendingWrite(mapping: Sample.stored(second)), Sample.now())
        #expect(registrations.newest(of: prefix)?.certified == second && registrations.newestTicket(of: prefix) == two.ticket)
        _ = registrations.finish(one.ticket, isDurable: true, Sample.now())
        #expect(registrations.isBeingWritten(prefix))
        _ = registrations.finish(two.ticket, isDurable: true, Sample.now())
        #expect(!registrations.isBeingWritten(prefix) && registrations.writesCount == 0)
        #expect(registrations.finish(two.ticket, isDurable: true, Sample.now()) == nil, "each ends once")
    }

    @Test("Duplicates wait for the write that is on its way, eight requests at most")
    func duplicates() {
        var registrations = Registrations(configuration)
        let request = Sample.request(.imsUpdate, from: "198.51.100.1")
        let write = registrations.begin(PendingWrite(mapping: Sample.stored(first), waiting: [request]), Sample.now())
        for _ in 0..<20 { registrations.join(write.ticket, request) }
        let ended = registrations.finish(write.ticket, isDurable: true, Sample.now())
        #expect(ended?.waiting.count == PendingWrite.waitingMax)
        #expect(Updates.answers(to: ended ?? PendingWrite(), .durable).count == PendingWrite.waitingMax)
    }

    @Test("Nothing goes back: what is older than what is held, or the same, is not held")
    func order() throws {
        var registrations = Registrations(configuration)
        #expect(try registrations.hold(Sample.stored(second), configuration, Sample.now())?.changes.map(\.reason) == [.registered])
        #expect(try registrations.hold(Sample.stored(first), configuration, Sample.now()) == nil)
        #expect(try registrations.hold(Sample.stored(second), configuration, Sample.now()) == nil)
        #expect(registrations[prefix]?.certified == second && registrations.count == 1)
    }

    @Test("A place in a prefix's quota is taken when a new HoA's write begins, and given back when it fails")
    func quotas() throws {
        var configuration = configuration
        configuration.served[0].mappingsMax = 1
        let served = configuration.served[0]
        var registrations = Registrations(configuration)
        let neighbour = IPPrefix(ip("192.0.2.9"))
        let write = registrations.begin(PendingWrite(mapping: Sample.stored(first)), ofUpdateTo: served, Sample.now())
        #expect(registrations.quotaRefusal(of: neighbour, served, Sample.now())?.code == .refused)
        #expect(registrations.quotaRefusal(of: prefix, served, Sample.now()) == nil, "it has its place")
        _ = registrations.finish(write.ticket, isDurable: false, Sample.now())
        #expect(registrations.quotaRefusal(of: neighbour, served, Sample.now()) == nil)
    }

    @Test("A store's failures are logged once in ten seconds, with the number of those between; its return tells the rest")
    func failures() {
        var store = StoreState()
        #expect(store.failed("", "full", Sample.now())?.contains("more since") == false)
        for _ in 0..<3 { #expect(store.failed("", "full", Sample.now(.seconds(1))) == nil) }
        #expect(store.failed("", "full", Sample.now(.seconds(11)))?.contains("and 3 more since") == true)
        #expect(store.becameUnavailable("full") != nil && store.becameUnavailable("full") == nil && store.refusal != nil)
        #expect(store.failed("", "full", Sample.now(.seconds(12))) == nil)
        #expect(
            store.becameAvailable()?.contains("1 more changes") == true && store.becameAvailable() == nil && store.refusal == nil)
    }
}
