import MATCore
import MATSignal

/// A RADIUS server: where it is asked, and where it accounts.
package struct RADIUSServer: Hashable, Sendable {
    package var access: Endpoint
    package var accounting: Endpoint
    package var secret: RADIUSSecret

    package init(access: Endpoint, accounting: Endpoint, secret: RADIUSSecret) {
        self.access = access
        self.accounting = accounting
        self.secret = secret
    }

    func endpoint(_ subject: RADIUSExchanges.Subject) -> Endpoint { subject == .access ? access : accounting }
}

/// What is asked of servers that stand in for each other, one exchange for each question.
///
/// ```
///   ask ─► the first server that is not silent ─► sent ─────────────── its answer ─────────────────────────────────► answered
///             │ none has room: refused             │ `wait` passes                                                      ▲
///             ▼                                    ├─► sent again, the same octets, `triesMax` times                    │
///                                                  └─► the server is silent; the next one ─► ... ─ none is left ─► unanswered
/// ```
/// Who was silent is asked last, for 30 s, or until it answers something: where one of two is down, only the first of those who ask wait for it.
/// An answer counts if it comes from where it was asked, has the identifier and shows the secret; others are dropped and counted, and the
/// exchange goes on.
package struct RADIUSExchanges: Sendable {
    package enum Subject: Hashable, Sendable { case access, accounting }

    package enum Answer: Hashable, Sendable {
        /// - Parameter seconds: as long as it lasts (Session-Timeout).
        case accepted(seconds: UInt32?)
        /// - Parameter text: in the server's words, if it has any.
        case refused(text: String?)
        case recorded
        /// No server answered in time.
        case unanswered
    }

    package enum Action: Sendable {
        case send([UInt8], to: Endpoint)
        case answered(ticket: UInt64, Answer)
        case silent(Endpoint)
        case answersAgain(Endpoint)
        /// Not believed, for this reason: said for the first one of each server.
        case dropped(Endpoint, RADIUSSecret.Doubt)
    }

    /// Under way at a server for each subject: an identifier has 256 values, and one should rest before it is used again.
    package static let exchangesPerServerMax = 200
    package static let silence: Duration = .seconds(30)

    private struct Exchange: Sendable {
        var ticket: UInt64
        var subject: Subject
        var attributes: [RADIUSAttribute]
        var server: Int
        var serversLeft: [Int]
        var octets: [UInt8]
        var authenticator: [UInt8]
        var tries = 1
    }

    private struct Key: Hashable, Sendable {
        let server: Int
        let subject: Subject
        let identifier: UInt8
    }

    private struct Place: Hashable, Sendable {
        let server: Int
        let subject: Subject
    }

    package let servers: [RADIUSServer]
    private let wait: Duration
    private let triesMax: Int
    private var exchanges: [Key: Exchange] = [:]
    private var counts: [Place: Int] = [:]
    private var identifiers: [Place: UInt8] = [:]
    private var silentUntil: [Int: MonotonicTime] = [:]
    private var doubted: Set<Int> = []
    private var deadlines = DeadlineQueue<Key>()
    package private(set) var droppedCount: UInt64 = 0
    package private(set) var sentCount: UInt64 = 0

    /// - Parameters:
    ///   - wait: for an answer, before the same is sent again.
    ///   - triesMax: at each server.
    package init(_ servers: [RADIUSServer], wait: Duration, triesMax: Int) {
        self.servers = servers
        self.wait = wait
        self.triesMax = max(1, triesMax)
    }

    package var count: Int { exchanges.count }
    package var nextDeadline: MonotonicTime? { mutating get { deadlines.next } }

    // MARK: Events

    /// - Parameter ticket: comes back with the answer.
    /// - Returns: `nil` if too much is under way.
    package mutating func ask(
        _ ticket: UInt64, _ subject: Subject, _ attributes: [RADIUSAttribute], _ random: inout some RandomNumberGenerator, _ now: MonotonicTime
    ) -> [Action]? {
        var order = servers.indices.filter { !isSilent($0, now) } + servers.indices.filter { isSilent($0, now) }
        while let server = order.first {
            order.removeFirst()
            if let action = begin(ticket, subject, attributes, at: server, then: order, &random, now) { return [action] }
        }
        return nil
    }

    package mutating func received(_ octets: [UInt8], from source: Endpoint, _ now: MonotonicTime) -> [Action] {
        guard let packet = RADIUSPacket(decoding: octets) else {
            droppedCount += 1
            return []
        }
        let subject: Subject
        switch packet.code {
        case .accessAccept, .accessReject, .accessChallenge: subject = .access
        case .accountingResponse: subject = .accounting
        case .accessRequest, .accountingRequest:
            droppedCount += 1
            return []
        }
        // Two entries may name one server with different secrets; then the one fits under whose key it was asked.
        for server in servers.indices where servers[server].endpoint(subject) == source {
            let key = Key(server: server, subject: subject, identifier: packet.identifier)
            guard let exchange = exchanges[key] else { continue }
            if let doubt = servers[server].secret.doubt(packet, octets, to: exchange.authenticator) {
                droppedCount += 1
                return doubted.insert(server).inserted ? [.dropped(source, doubt)] : []
            }
            end(key)
            doubted.remove(server)
            let answered = Action.answered(ticket: exchange.ticket, Self.answer(packet))
            return silentUntil.removeValue(forKey: server) == nil ? [answered] : [answered, .answersAgain(source)]
        }
        // Late: another server has answered since, or nobody waits any more.
        return []
    }

    package mutating func due(_ random: inout some RandomNumberGenerator, _ now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        while let key = deadlines.takeDue(now) {
            guard var exchange = exchanges[key] else { continue }
            let endpoint = servers[key.server].endpoint(key.subject)
            if exchange.tries < triesMax {
                exchange.tries += 1
                exchanges[key] = exchange
                deadlines.set(key, at: now + wait)
                sentCount += 1
                actions.append(.send(exchange.octets, to: endpoint))
                continue
            }
            end(key)
            if silentUntil.updateValue(now + Self.silence, forKey: key.server) == nil { actions.append(.silent(endpoint)) }
            var left = exchange.serversLeft
            var next: Action?
            while next == nil, let server = left.first {
                left.removeFirst()
                next = begin(exchange.ticket, exchange.subject, exchange.attributes, at: server, then: left, &random, now)
            }
            actions.append(next ?? .answered(ticket: exchange.ticket, .unanswered))
        }
        return actions
    }

    // MARK: One exchange

    private func isSilent(_ server: Int, _ now: MonotonicTime) -> Bool { silentUntil[server].map { now < $0 } ?? false }

    /// - Returns: `nil` if the server has enough to do.
    private mutating func begin(
        _ ticket: UInt64, _ subject: Subject, _ attributes: [RADIUSAttribute], at server: Int, then left: [Int],
        _ random: inout some RandomNumberGenerator, _ now: MonotonicTime
    ) -> Action? {
        let place = Place(server: server, subject: subject)
        guard counts[place, default: 0] < Self.exchangesPerServerMax else { return nil }
        var identifier = identifiers[place, default: 0]
        while exchanges[Key(server: server, subject: subject, identifier: identifier)] != nil { identifier &+= 1 }
        identifiers[place] = identifier &+ 1
        let key = Key(server: server, subject: subject, identifier: identifier)
        let octets: [UInt8]
        let authenticator: [UInt8]
        switch subject {
        case .access:
            authenticator = (0..<RADIUSPacket.authenticatorOctets).map { _ in UInt8.random(in: .min ... .max, using: &random) }
            octets = servers[server].secret.accessRequest(identifier: identifier, authenticator: authenticator, attributes)
        case .accounting: (octets, authenticator) = servers[server].secret.accountingRequest(identifier: identifier, attributes)
        }
        exchanges[key] = Exchange(
            ticket: ticket, subject: subject, attributes: attributes, server: server, serversLeft: left, octets: octets, authenticator: authenticator)
        counts[place, default: 0] += 1
        deadlines.set(key, at: now + wait)
        sentCount += 1
        return .send(octets, to: servers[server].endpoint(subject))
    }

    private mutating func end(_ key: Key) {
        guard exchanges.removeValue(forKey: key) != nil else { return }
        counts[Place(server: key.server, subject: key.subject), default: 1] -= 1
        deadlines.cancel(key)
    }

    private static func answer(_ packet: RADIUSPacket) -> Answer {
        let text = packet.attributes.filter { $0.kind == RADIUSAttribute.Kind.replyMessage }.map(\.text).joined(separator: " ")
        switch packet.code {
        case .accessAccept: return .accepted(seconds: packet.attributes[RADIUSAttribute.Kind.sessionTimeout]?.number)
        case .accountingResponse: return .recorded
        // A challenge asks for what a node can't be asked.
        case .accessReject, .accessChallenge, .accessRequest, .accountingRequest: return .refused(text: text.isEmpty ? nil : text)
        }
    }
}
