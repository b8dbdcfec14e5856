import Foundation
import Glibc
import Testing

/// Conversations that speak all the time, in both directions unless told otherwise: TCP connections, and UDP sockets that are connected to each other. It notes
/// what ends one: a reset or a refusal, not a loss.
final class Traffic: @unchecked Sendable {
    struct Way {
        var isIPv4: Bool
        var near: String, far: String
        /// Where `far` is reached, and what `near` speaks from.
        var address: String, home: String
        /// `near` sends nothing but the acknowledgements of TCP.
        var isHeardOnly = false
    }

    /// One end of a conversation.
    private struct End {
        let socket: HostSocket
        let name: String
        let isStream: Bool
        /// Whether the other end speaks, and whether this one does.
        var hears = true, speaks = true
        var received = 0
        var ended: String?
    }

    private var all: [End] = []
    private var listeners: [HostSocket] = []
    private let lock = NSLock()
    private var isOver = false
    private let finished = DispatchSemaphore(value: 0)

    /// Errors that end a conversation. Others say that there is no way just now.
    private static let fatal = [ECONNRESET, ECONNREFUSED, EPIPE, ECONNABORTED, ETIMEDOUT, ENOTCONN]
    /// Between two words of each end.
    private static let pause: UInt32 = 4000

    private static let ports: Ports = Ports()
    private final class Ports: @unchecked Sendable {
        private var next: UInt16 = 7400
        private let lock = NSLock()
        func take() -> UInt16 {
            lock.withLock {
                next += 1
                return next
            }
        }
    }

    /// Two TCP connections and a pair of UDP sockets for each way.
    init(_ lab: Lab, _ ways: [Way]) throws {
        for way in ways {
            let family = way.isIPv4 ? "IPv4" : "IPv6"
            let port = Self.ports.take()
            let listener = try HostSocket(lab, way.far, SOCK_STREAM, isIPv4: way.isIPv4)
            try listener.bindAll(port: port)
            try listener.listen()
            listeners.append(listener)
            for number in 1...2 {
                let client = try HostSocket(lab, way.near, SOCK_STREAM, isIPv4: way.isIPv4)
                if way.far == "plain" { try client.bind(way.home, port: 0) }
                try client.connect(way.address, port: port)
                let server = try listener.accept()
                add(client, server, "\(family) TCP \(number)", isStream: true, way)
            }
            let datagrams = Self.ports.take()
            let (near, far) = (
                try HostSocket(lab, way.near, SOCK_DGRAM, isIPv4: way.isIPv4), try HostSocket(lab, way.far, SOCK_DGRAM, isIPv4: way.isIPv4)
            )
            try near.bind(way.home, port: datagrams)
            try far.bind(way.address, port: datagrams)
            try near.connect(way.address, port: datagrams)
            try far.connect(way.home, port: datagrams)
            add(near, far, "\(family) UDP", isStream: false, way)
        }
        for end in all { _ = fcntl(end.socket.descriptor, F_SETFL, fcntl(end.socket.descriptor, F_GETFL) | O_NONBLOCK) }
        let thread = Thread { [self] in
            while !lock.withLock({ isOver }) {
                speak()
                usleep(Self.pause)
            }
            finished.signal()
        }
        thread.start()
    }

    private func add(_ near: HostSocket, _ far: HostSocket, _ name: String, isStream: Bool, _ way: Way) {
        all.append(End(socket: near, name: "\(name) at \(way.near)", isStream: isStream, speaks: !way.isHeardOnly))
        all.append(End(socket: far, name: "\(name) at \(way.far)", isStream: isStream, hears: !way.isHeardOnly))
    }

    private func speak() {
        var octets = [UInt8](repeating: 7, count: 4096)
        for place in all.indices {
            let (descriptor, isEnded, speaks) = lock.withLock { (all[place].socket.descriptor, all[place].ended != nil, all[place].speaks) }
            if isEnded { continue }
            var received = 0
            var failure: Int32 = 0
            while true {
                let got = recv(descriptor, &octets, octets.count, 0)
                if got > 0 {
                    received += got
                    continue
                }
                if got == 0 { failure = all[place].isStream ? EPIPE : 0 } else if errno != EAGAIN { failure = errno }
                break
            }
            if failure == 0, speaks, Glibc.send(descriptor, octets, 16, Int32(MSG_NOSIGNAL)) < 0, errno != EAGAIN { failure = errno }
            lock.withLock {
                all[place].received += received
                if Self.fatal.contains(failure) { all[place].ended = String(cString: strerror(failure)) }
            }
        }
    }

    /// What ended, and by what.
    var ends: [String] { lock.withLock { all.compactMap { end in end.ended.map { "\(end.name): \($0)" } } } }

    /// Octets that each end has received.
    var report: String { lock.withLock { all.map { "\($0.name) \($0.received)\($0.ended.map { " \($0)" } ?? "")" }.joined(separator: ", ") } }

    /// Waits until each end that has not ended, and whose other one speaks, hears it again.
    func goesOn(within seconds: Double) -> Bool {
        let before = lock.withLock { all.map(\.received) }
        let end = Date().addingTimeInterval(seconds)
        while Date() < end {
            usleep(10_000)
            // Twice what may have been on its way.
            if lock.withLock({ all.indices.allSatisfy { all[$0].ended != nil || !all[$0].hears || all[$0].received > before[$0] + 64 } }) {
                return true
            }
        }
        return false
    }

    func end() {
        lock.withLock { isOver = true }
        finished.wait()
    }
}
