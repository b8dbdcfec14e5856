import MATControl
import MATSignal

/// What `mat explain` prints: conversations with what becomes of their packets, and sockets that wait for some.
struct ExplainReport: Codable, Hashable, Sendable {
    struct Process: Codable, Hashable, Sendable {
        var id: Int32
        var name: String
    }

    struct Socket: Codable, Hashable, Sendable {
        var transport: HostSocket.Transport
        var state: String
        /// Addresses with ports.
        var local: String
        @OrNull var remote: String?

        init(_ socket: HostSocket) {
            transport = socket.transport
            state = socket.state
            local = "\(socket.local)"
            remote = socket.remote.map { "\($0)" }
        }
    }

    struct Conversation: Codable, Hashable, Sendable {
        /// `nil` where only an address was asked about, or there is no such socket.
        @OrNull var socket: Socket?
        var traffic: TrafficReport
    }

    /// A socket that takes what comes.
    struct Waiting: Codable, Hashable, Sendable {
        enum Reach: String, Codable, Hashable, Sendable {
            /// By home addresses alone: all that comes is mapped.
            case homes
            /// By all addresses: what comes to a home address is mapped.
            case all
            /// By an address that is no home address.
            case plain
            case thisHost
        }

        var socket: Socket
        var reach: Reach
    }

    @OrNull var process: Process?
    var homes: [String]
    var conversations: [Conversation]
    var waiting: [Waiting]
    /// What else a reader should know.
    @OrNull var note: String?

    /// Whether each conversation goes on when this host or the other end moves.
    var survives: Bool { conversations.allSatisfy { $0.traffic.survives == .yes } }
}

extension ExplainReport.Waiting {
    init(_ socket: HostSocket, homes: [IPPrefix]) {
        let address = socket.local.address
        self.init(
            socket: ExplainReport.Socket(socket),
            reach: address.isUnspecified ? .all : address.isLoopback ? .thisHost : homes.contains { $0.contains(address) } ? .homes : .plain)
    }
}
