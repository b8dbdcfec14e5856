import MATServer
import MATSignal

/// A request that is alone in its datagram and is no query, read in place.
struct RequestHead {
    var type: MessageType
    var sequence: UInt32
    var clientCookie: UInt64
    var serverCookie: ServerCookie?
    /// HOA of HA Notify and of Bind, or the mapping's.
    var hoa: IPAddress?

    /// A Bind that asks for nothing but what source is seen.
    var isAsk: Bool { type == .bind && hoa == nil }
}

/// The answers and acks of a datagram.
enum ResponseHeads: Hashable {
    case none
    /// All of them have this client cookie.
    case under(UInt64)
    /// One is of a type that this server never asks for, or has another cookie than those before: what one of ours was answered with comes from
    /// one place, whose cookie is one.
    case unasked
}

/// Looks over what `QueryResponder` leaves, by the grammar that all readers share: without allocating and in a fraction of a microsecond,
/// so that a flood of what is not worth the core's time ends at the worker.
///
/// It finds malformed what `SignalDatagram.decode` finds malformed (`QueryPathTests` compares them), with two exceptions: the draft's bodies
/// are left to the core, and TEXT in a request, which no node sends, is odd.
struct DatagramInspector {
    struct Result {
        var kind: DatagramKind
        var request: RequestHead?
        var responses = ResponseHeads.none
    }

    let table: OptionTable

    func inspect(_ datagram: UnsafeRawBufferPointer) -> Result {
        guard datagram.count <= SignalDatagram.octetsMax else { return Result(kind: .odd) }
        var kind = DatagramKind.regular
        var request: RequestHead?
        var responses = ResponseHeads.none
        var start = 0
        var count = 0
        repeat {
            guard count < SignalDatagram.messagesMax else { return Result(kind: .odd) }
            var message = SignalView(datagram, from: start)
            guard !message.isEmpty else { return Result(kind: .odd) }
            kind = max(kind, kindOf(&message))
            guard kind != .odd else { return Result(kind: .odd) }
            request = head(message)
            add(message, to: &responses)
            start += message.octetsCount
            count += 1
        } while start < datagram.count
        return Result(kind: kind, request: count == 1 ? request : nil, responses: responses)
    }

    /// - Parameter message: as for `head`.
    private func add(_ message: SignalView, to responses: inout ResponseHeads) {
        guard let type = message.type, message.hasOptions, !type.isRequest else { return }
        // IMSs ask each other for mappings, and push what they have; nothing else of theirs is answered at these sockets.
        guard type == .maAnswer || type == .maNotifyAck, let client = message.cookie?.client else {
            responses = .unasked
            return
        }
        switch responses {
        case .none: responses = .under(client)
        case .under(let other): if other != client { responses = .unasked }
        case .unasked: break
        }
    }

    private func kindOf(_ message: inout SignalView) -> DatagramKind {
        guard let type = message.type else { return .odd }
        guard message.hasOptions else { return .draft }
        guard message.read(table) == nil, !(type.isRequest && message.has(.text)) else { return .odd }
        return switch type {
        case .imsUpdate, .bind: .update
        case .join: .join
        case .haNotify, .maNotify: .notify
        // Nodes probe each other, and no server.
        case .pathProbe, .pathAnswer: .odd
        default: .regular
        }
    }

    /// - Parameter message: one that was read and is well-formed.
    private func head(_ message: SignalView) -> RequestHead? {
        guard let type = message.type, type.isRequest, type != .maQuery, type != .haQuery, let cookie = message.cookie else { return nil }
        let hoa = type == .haNotify || type == .bind ? message.address(.hoa) : message.mapping?.hoa
        return RequestHead(type: type, sequence: message.sequence, clientCookie: cookie.client, serverCookie: cookie.server, hoa: hoa)
    }
}
