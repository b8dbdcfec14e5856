import MATCore
import MATSignal

/// Who wants a visited home, or has one.
public enum VisitingProgram: Hashable, Comparable, Sendable {
    /// A program that asks for it, by its connection: it is its own as long as that stands.
    case asking(connection: UInt64)
    /// One whose sockets are to start from it (`mat run --via visited`), by the connection over which that was said: until they do.
    case starting(connection: UInt64, AddressFamily)
    /// All those that start from this one.
    case steered(HomeAddress)

    public init(_ connection: UInt64) { self = .asking(connection: connection) }

    /// Whether it is told what it gets.
    var isAnswered: Bool { if case .steered = self { false } else { true } }
}

public enum VisitAnswer: Hashable, Sendable {
    case address(HomeAddress)
    /// Why there is none, for people.
    case refused(String)
}

/// What a program that is to start from visited homes waits for: one of each family, as far as there are any.
public struct AwaitedHomes: Sendable {
    public enum Outcome: Hashable, Sendable {
        case homes([HomeAddress])
        /// Why there is none, for people.
        case refused(String)
    }

    private var awaited: Set<AddressFamily>
    private var homes: [HomeAddress] = []
    private var reasons: [String] = []

    /// - Parameter families: at least one.
    public init(_ families: Set<AddressFamily>) { awaited = families }

    /// - Returns: what the program gets, once all have been answered.
    public mutating func answered(_ family: AddressFamily, _ answer: VisitAnswer) -> Outcome? {
        guard awaited.remove(family) != nil else { return nil }
        switch answer {
        case .address(let hoa): homes.append(hoa)
        case .refused(let reason): if !reasons.contains(reason) { reasons.append(reason) }
        }
        guard awaited.isEmpty else { return nil }
        return homes.isEmpty ? .refused(reasons.joined(separator: "; ")) : .homes(homes.sorted())
    }
}

/// The visited homes that this node has or asks for, and the programs that use them.
///
/// ```
///   a program ──► one of this network and family ──► it joins those that use it
///                   └ none ──► a new `Visit`, as long as there are fewer than eight
///   its connection ends ──► it leaves; the last one has the address given back after a while
///   a grant of an address that another visit has ──► they are one from then on
/// ```
struct Visits: Sendable {
    /// Each has a core of its own, which costs memory and a share of the node's rates.
    static let visitsMax = 8
    static let programsMax = 256

    enum Action: Sendable {
        case lookUp(HomeAddress)
        case send([UInt8], from: IPAddress, to: Endpoint)
        case enter(HomeIdentity)
        case prolonged(Certificate)
        case leave(HomeAddress)
        case answer(VisitingProgram, VisitAnswer)
        case log(NodeLogLevel, String)
    }

    private var visits: [Visit] = []
    private var random: any RandomNumberGenerator & Sendable
    private let linger: Duration

    init(linger: Duration = Visit.lingerDefault, random: any RandomNumberGenerator & Sendable) {
        self.linger = linger
        self.random = random
    }

    var isEmpty: Bool { visits.isEmpty }
    private var programsCount: Int { visits.reduce(0) { $0 + $1.programs.count } }

    /// HoAs that wait to be registered.
    var awaited: [HomeAddress] { visits.filter(\.isRegistering).compactMap(\.hoa) }

    /// What is there, for people: each with the number of its programs.
    var held: [(hoa: HomeAddress, programs: Int)] {
        visits.compactMap { visit in visit.hoa.map { ($0, visit.programs.count) } }.sorted { $0.hoa < $1.hoa }
    }

    // MARK: Programs

    mutating func request(_ program: VisitingProgram, _ family: AddressFamily, _ around: Visit.Surroundings) -> [Action] {
        func refuse(_ reason: String) -> [Action] { [.answer(program, .refused(reason))] }
        guard !visits.contains(where: { $0.programs.contains(program) }) else {
            return refuse("this connection has a visited home already; a program asks for another one over another connection")
        }
        guard programsCount < Self.programsMax else { return refuse("\(Self.programsMax) programs use visited homes, and no more may") }
        guard let home = around.home, home.hoa.family == family else {
            return refuse("this node has no home address of \(family), beside which it could have a visited one")
        }
        if let index = visits.firstIndex(where: { $0.family == family && $0.isOpen && $0.isFor(around.places) }) {
            return perform(visits[index].add(program))
        }
        guard visits.count < Self.visitsMax else { return refuse("\(visits.count) visited homes are in use or being given back, and no more may be") }
        var visit = Visit(family, home, linger: linger)
        _ = visit.add(program)
        let actions = visit.begin(around)
        if !visit.hasEnded { visits.append(visit) }
        return perform(actions)
    }

    /// Its connection has ended.
    mutating func release(_ program: VisitingProgram, _ now: MonotonicTime) {
        for index in visits.indices { visits[index].remove(program, now) }
    }

    /// Programs start from these homes now, and from no others.
    mutating func steered(from homes: Set<HomeAddress>, _ now: MonotonicTime) {
        for index in visits.indices {
            guard let hoa = visits[index].hoa else { continue }
            if homes.contains(hoa) { visits[index].keep(for: .steered(hoa)) } else { visits[index].remove(.steered(hoa), now) }
        }
    }

    /// Programs of an earlier run start from these homes.
    ///
    /// - Parameter home: as which the node is at home in a family.
    /// - Returns: homes that can't be kept.
    mutating func takeOver(_ homes: [HomeAddress], home: (AddressFamily) -> HomeIdentity?, _ now: MonotonicTime) -> [HomeAddress] {
        homes.filter { hoa in
            guard visits.count < Self.visitsMax, let identity = home(hoa.family) else { return true }
            visits.append(Visit(takingOver: hoa, identity, linger: linger, now))
            return false
        }
    }

    /// Whether the address is one that an earlier run had and that the node is about to have again.
    func isBeingTakenOver(_ address: IPAddress) -> Bool { visits.contains { $0.isBeingTakenOver && $0.hoa?.address == address } }

    // MARK: Events

    mutating func lookedUp(_ name: HomeAddress, _ result: ServerLookup, _ around: Visit.Surroundings, _ now: Now) -> [Action] {
        each { visit, random in visit.lookedUp(name, result, around, random: &random, now) }
    }

    /// - Returns: `nil` if it is no answer to any of them.
    mutating func received(_ message: SignalMessage, from source: Endpoint, to local: IPAddress, _ now: Now) -> [Action]? {
        for index in visits.indices {
            guard var actions = visits[index].received(message, from: source, to: local, random: &random, now) else { continue }
            actions += unite(index)
            visits.removeAll(where: \.hasEnded)
            return perform(actions)
        }
        return nil
    }

    /// A visitor has one address of a network, however often it asks there: from another own address, or after an agent that was killed.
    private mutating func unite(_ index: Int) -> [Visit.Action] {
        guard let granted = visits[index].granted, let known = visits.firstIndex(where: { $0.hoa == granted }) else { return [] }
        guard visits[known].isOpen else {
            // It is the node's again before it was given back.
            visits[known].end()
            return []
        }
        let actions = visits[known].take(over: visits[index])
        visits[index].end()
        return actions
    }

    mutating func registered(_ hoa: HomeAddress, _ now: MonotonicTime) -> [Action] {
        each { visit, _ in visit.hoa == hoa ? visit.registered(now) : [] }
    }

    mutating func left(_ hoa: HomeAddress, sequence: UInt64, _ around: Visit.Surroundings, _ now: Now) -> [Action] {
        each { visit, random in
            visit.hoa == hoa && !visit.isOpen ? visit.left(sequence: sequence, around, random: &random, now) : []
        }
    }

    var nextDue: MonotonicTime? { visits.reduce(nil) { $0.earlier($1.nextDue) } }

    mutating func due(_ around: Visit.Surroundings, _ now: Now) -> [Action] {
        each { visit, random in
            visit.due(random: &random, now) + visit.prolongIfDue(around, random: &random, now)
        }
    }

    private mutating func each(_ event: (inout Visit, inout any RandomNumberGenerator & Sendable) -> [Visit.Action]) -> [Action] {
        var actions: [Action] = []
        for index in visits.indices { actions += perform(event(&visits[index], &random)) }
        visits.removeAll(where: \.hasEnded)
        return actions
    }

    private func perform(_ actions: [Visit.Action]) -> [Action] {
        actions.flatMap { action -> [Action] in
            switch action {
            case .lookUp(let name): [.lookUp(name)]
            case .send(let octets, let own, let target): [.send(octets, from: own, to: target)]
            case .enter(let identity): [.enter(identity)]
            case .prolonged(let certificate): [.prolonged(certificate)]
            case .leave(let hoa): [.leave(hoa)]
            case .answer(let programs, let answer): programs.filter(\.isAnswered).map { .answer($0, answer) }
            case .log(let level, let text): [.log(level, text)]
            }
        }
    }
}
