import MATCore
import MATSignal

/// The local ports that this node's datagrams leave from, for each own MoA before which a translator stands (protocol.md section 11.3).
///
/// ```
///   6289 ──── no server answers any more, in all tries ────► another, at random ──── likewise ────► 6289 ────► ...
///     ▲                                                          │        at most one change a minute
///     └───────────────── the MoA is gone ◄───────────────────────┘
/// ```
/// A translator that has another way out since, or lost what it knew, may keep a flow as it was for as long as packets refresh it, though nothing
/// comes back. To it another local port is another flow.
struct LocalPorts: Sendable {
    private struct Choice: Sendable {
        let port: UInt16
        let at: MonotonicTime
    }

    /// Between two changes of one MoA's port.
    static let pause: Duration = .seconds(60)
    /// From where ports are taken: above those that systems give to applications.
    static let range: ClosedRange<UInt16> = 61_001...65_000

    private var choices: [MobileAddress: Choice] = [:]

    func port(of moa: MobileAddress) -> UInt16 { choices[moa]?.port ?? SignalPort.node }

    /// Nothing comes back from any server to this MoA.
    ///
    /// - Returns: the port to use from now on; `nil` if one was tried a moment ago.
    mutating func silent(_ moa: MobileAddress, random: inout any RandomNumberGenerator, _ now: MonotonicTime) -> UInt16? {
        guard choices[moa].map({ now - $0.at >= Self.pause }) ?? true else { return nil }
        let port = port(of: moa) == SignalPort.node ? UInt16.random(in: Self.range, using: &random) : SignalPort.node
        choices[moa] = Choice(port: port, at: now)
        return port
    }

    /// These are our MoAs now.
    ///
    /// - Returns: those that are none any more and had another port; in order.
    mutating func keep(_ moas: [MobileAddress]) -> [MobileAddress] {
        let gone = choices.keys.filter { !moas.contains($0) }.sorted()
        let changed = gone.filter { port(of: $0) != SignalPort.node }
        for moa in gone { choices[moa] = nil }
        return changed
    }
}
