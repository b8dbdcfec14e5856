import MATCore
import MATSignal

/// Where a peer's packets came from until just now: what is on its way from there is taken for a while.
struct LingeringSources: Sendable {
    /// More are not remembered.
    static let sourcesMax = 8

    private var ends: [(source: Endpoint, at: MonotonicTime)] = []

    var all: [Endpoint] { ends.map(\.source) }
    /// When `takeDue` is to be told.
    var due: MonotonicTime? { ends.map(\.at).min() }

    /// Nothing new comes from these.
    mutating func add(_ sources: some Sequence<Endpoint>, _ now: MonotonicTime) {
        for source in sources {
            remove([source])
            if ends.count < Self.sourcesMax { ends.append((source, now + OwnBindings.lingerTime)) }
        }
    }

    /// Something does again.
    mutating func remove(_ sources: [Endpoint]) { ends.removeAll { sources.contains($0.source) } }

    /// - Returns: whether the time of some has come.
    mutating func takeDue(_ now: MonotonicTime) -> Bool {
        let before = ends.count
        ends.removeAll { $0.at <= now }
        return ends.count < before
    }
}
