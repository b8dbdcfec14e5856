import NIOCore
import Synchronization

/// The open connections of an HTTP server, as many as may be. Who only holds one open loses it to who comes.
final class HTTPConnections: Sendable {
    private struct Connection {
        var channel: any Channel
        var isAnswered = false
    }

    private let max: Int
    /// Those that wait for a request stand in the order in which they began to.
    private let open = Mutex<[Connection]>([])

    init(max: Int) { self.max = max }

    /// - Returns: `false` if there is no room, since all are being answered.
    func enter(_ channel: any Channel) -> Bool {
        let (isIn, evicted) = open.withLock { open -> (Bool, (any Channel)?) in
            var evicted: (any Channel)?
            if open.count >= max {
                guard let oldest = open.firstIndex(where: { !$0.isAnswered }) else { return (false, nil) }
                evicted = open.remove(at: oldest).channel
            }
            open.append(Connection(channel: channel))
            return (true, evicted)
        }
        evicted?.close(promise: nil)
        return isIn
    }

    func leave(_ channel: any Channel) { open.withLock { $0.removeAll { $0.channel === channel } } }

    /// It has asked for something.
    func isAnswered(_ channel: any Channel) { change(channel, to: true) }

    /// It has its answer, and may ask for more.
    func waits(_ channel: any Channel) { change(channel, to: false) }

    private func change(_ channel: any Channel, to isAnswered: Bool) {
        open.withLock { open in
            guard let index = open.firstIndex(where: { $0.channel === channel }) else { return }
            open.remove(at: index)
            open.append(Connection(channel: channel, isAnswered: isAnswered))
        }
    }
}
