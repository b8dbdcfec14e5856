import IMTPlan
import MATSignal

/// What one event wants done: the actions in order, kernel changes before whatever may be answered, and messages to one place together.
///
/// ```
///   change, change ──► gathered ── the next message, release or the event's end ──► one `.changeIMT`, before it
///   messages of one event from one own address to one place ──► one datagram (section 1), until a kernel change comes between
/// ```
struct Effects: Sendable {
    private struct Way: Hashable {
        let own: IPAddress
        let target: Endpoint
        let needsRoom: Bool
    }

    /// A datagram among the actions that has room for more messages.
    private struct OpenDatagram {
        let action: Int
        var messages: Int
        var octets: Int
    }

    private var actions: [NodeAction] = []
    private var changes: [IMTChange] = []
    private var open: [Way: OpenDatagram] = [:]

    mutating func add(_ action: NodeAction) { actions.append(action) }

    mutating func change(_ change: IMTChange) { changes.append(change) }

    /// Puts the kernel changes so far before what is added next.
    mutating func commit() {
        guard !changes.isEmpty else { return }
        actions.append(.changeIMT(changes))
        changes = []
        // An answer to what goes earlier could come before the change.
        open = [:]
    }

    /// Sends a message. Several to one place in one event share a datagram. Kernel changes decided before go first: an answer may come at once.
    ///
    /// - Parameter needsRoom: it is for somebody who has not shown that he is there; see `NodeAction.sendIfRoom`.
    mutating func send(_ octets: [UInt8], from own: IPAddress, to target: Endpoint, needsRoom: Bool) {
        commit()
        func action(_ octets: [UInt8]) -> NodeAction {
            needsRoom ? .sendIfRoom(octets, from: own, to: target) : .send(octets, from: own, to: target)
        }
        let way = Way(own: own, target: target, needsRoom: needsRoom)
        if let datagram = open[way], datagram.messages < SignalDatagram.messagesMax, datagram.octets + octets.count <= SignalDatagram.octetsMax,
            var whole = Self.octets(of: actions[datagram.action])
        {
            // Taken out for the moment, so that appending does not copy.
            actions[datagram.action] = action([])
            whole += octets
            actions[datagram.action] = action(whole)
            open[way]?.messages += 1
            open[way]?.octets += octets.count
        } else {
            open[way] = OpenDatagram(action: actions.count, messages: 1, octets: octets.count)
            add(action(octets))
        }
    }

    private static func octets(of action: NodeAction) -> [UInt8]? {
        switch action {
        case .send(let octets, _, _), .sendIfRoom(let octets, _, _): octets
        default: nil
        }
    }

    /// Ends the event: all that it wants done.
    mutating func end() -> [NodeAction] {
        commit()
        open = [:]
        defer { actions = [] }
        return actions
    }
}
