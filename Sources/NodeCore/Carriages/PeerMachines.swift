import MATCore
import MATSignal

/// A machine for one peer, of those that few peers have.
protocol PeerMachine: Sendable {
    init()

    /// Nothing is known any more, and nothing is left with the kernel.
    var isEmpty: Bool { get }
    /// When it is to be told that time has passed.
    var due: MonotonicTime? { get }
}

/// The machines of one kind. Most peers have none, so they stand apart from `PeerTable`; the deadlines of all of them stand in one queue.
struct PeerMachines<Machine: PeerMachine>: Sendable {
    private let peersMax: Int
    private var machines: [HomeAddress: Machine] = [:]
    private var deadlines = DeadlineQueue<HomeAddress>()

    init(peersMax: Int) { self.peersMax = peersMax }

    // MARK: Questions

    subscript(hoa: HomeAddress) -> Machine? { machines[hoa] }

    var isEmpty: Bool { machines.isEmpty }
    /// In order.
    var hoas: [HomeAddress] { machines.keys.sorted() }

    /// Those of which something is so; in order.
    func hoas(where isSo: (Machine) -> Bool) -> [HomeAddress] { machines.filter { isSo($0.value) }.keys.sorted() }

    /// When `takeDue` is to be told.
    var nextDue: MonotonicTime? {
        mutating get { deadlines.next }
    }

    // MARK: Events

    /// Tells a peer's, and sets its clock.
    ///
    /// - Parameter enters: it may be a new one, if there is room.
    /// - Returns: `nil` if the peer has none.
    mutating func tell<Answer>(_ hoa: HomeAddress, enters: Bool, _ event: (inout Machine) -> Answer) -> Answer? {
        // Taken out while it changes, so that nothing of it is copied.
        guard var machine = machines.removeValue(forKey: hoa) ?? (enters && machines.count < peersMax ? Machine() : nil) else { return nil }
        let answer = event(&machine)
        guard !machine.isEmpty else {
            deadlines.cancel(hoa)
            return answer
        }
        if let due = machine.due { deadlines.set(hoa, at: due) } else { deadlines.cancel(hoa) }
        machines[hoa] = machine
        return answer
    }

    /// Tells all of them something that changes no deadline.
    mutating func tellAll(_ event: (inout Machine) -> Void) {
        for index in machines.values.indices { event(&machines.values[index]) }
    }

    mutating func remove(_ hoa: HomeAddress) {
        machines[hoa] = nil
        deadlines.cancel(hoa)
    }

    /// The peer whose machine has something due.
    mutating func takeDue(_ now: MonotonicTime) -> HomeAddress? { deadlines.takeDue(now) }
}

/// Which peers the probes went to that may be answered yet, by their sequences.
struct AskedPeers: Sendable {
    private var peers: [UInt32: HomeAddress] = [:]

    subscript(sequence: UInt32) -> HomeAddress? { peers[sequence] }

    /// A peer is asked with these sequences from now on.
    mutating func replace(_ before: [UInt32], by after: [UInt32], of hoa: HomeAddress) {
        guard after != before else { return }
        for sequence in before { peers[sequence] = nil }
        for sequence in after { peers[sequence] = hoa }
    }
}
