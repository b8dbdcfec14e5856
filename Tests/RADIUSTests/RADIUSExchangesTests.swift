import MATCore
import MATSignal
import SeededRandom
import Testing

@testable import RADIUS

private func endpoint(_ text: String, _ port: UInt16) -> Endpoint { Endpoint(IPAddress(text) ?? .unspecifiedIPv6, port: port) }

@Suite("Exchanges with RADIUS servers")
final class RADIUSExchangesTests {
    private let secret: RADIUSSecret
    private let first = endpoint("192.0.2.250", 1812)
    private let second = endpoint("2001:db8::250", 1812)
    private var exchanges: RADIUSExchanges
    private var random = SeededGenerator(seed: 1)
    private var now = MonotonicTime(nanoseconds: 1_000_000_000)

    init() throws {
        secret = try #require(RADIUSSecret(Array("testing123".utf8)))
        exchanges = RADIUSExchanges(
            [
                RADIUSServer(access: first, accounting: endpoint("192.0.2.250", 1813), secret: secret),
                RADIUSServer(access: second, accounting: endpoint("2001:db8::250", 1813), secret: secret),
            ], wait: .seconds(1), triesMax: 2)
    }

    private func ask(_ ticket: UInt64, _ subject: RADIUSExchanges.Subject = .access) -> [RADIUSExchanges.Action]? {
        exchanges.ask(ticket, subject, [RADIUSAttribute(RADIUSAttribute.Kind.userName, text: "\(ticket)")], &random, now)
    }

    /// Lets time pass to the next deadline.
    private func wait() throws -> [RADIUSExchanges.Action] {
        let deadline = exchanges.nextDeadline
        now = try #require(deadline)
        return exchanges.due(&random, now)
    }

    private func sent(_ actions: [RADIUSExchanges.Action]?) throws -> (packet: RADIUSPacket, to: Endpoint) {
        for case .send(let octets, let server) in actions ?? [] { return (try #require(RADIUSPacket(decoding: octets)), server) }
        throw Failure()
    }

    private struct Failure: Error {}

    private func answer(_ actions: [RADIUSExchanges.Action]) -> RADIUSExchanges.Answer? {
        for case .answered(_, let answer) in actions { return answer }
        return nil
    }

    @Test("An accept, a reject with its text and a challenge end the exchange, each as what it is")
    func answers() throws {
        for (code, attributes, expected): (RADIUSPacket.Code, [RADIUSAttribute], RADIUSExchanges.Answer) in [
            (.accessAccept, [], .accepted(seconds: nil)),
            (.accessAccept, [RADIUSAttribute(RADIUSAttribute.Kind.sessionTimeout, number: 3600)], .accepted(seconds: 3600)),
            (.accessReject, [RADIUSAttribute(RADIUSAttribute.Kind.replyMessage, text: "not\u{7} today")], .refused(text: "not\\u{7} today")),
            (.accessReject, [], .refused(text: nil)), (.accessChallenge, [], .refused(text: nil)),
        ] {
            let (packet, server) = try sent(ask(7))
            let found = answer(exchanges.received(secret.answer(code, to: packet, attributes), from: server, now))
            if case .refused(let text?) = found {
                #expect(text.contains("not") && text.contains("today") && !text.unicodeScalars.contains { $0.value < 0x20 })
            } else {
                #expect(found == expected)
            }
        }
        let deadline = exchanges.nextDeadline
        #expect(exchanges.count == 0 && deadline == nil)
    }

    @Test("Who does not answer is sent the same again, then the other server is asked; then nobody has answered")
    func failOver() throws {
        let (packet, server) = try sent(ask(1))
        #expect(server == first)
        let again = try sent(wait())
        #expect(again.packet == packet && again.to == first)
        let actions = try wait()
        #expect(actions.contains { if case .silent(first) = $0 { true } else { false } })
        let next = try sent(actions)
        #expect(next.to == second && next.packet.authenticator != packet.authenticator)
        #expect(answer(try wait()) == nil)
        #expect(answer(try wait()) == .unanswered)
        // An answer that comes now is nobody's.
        #expect(exchanges.received(secret.answer(.accessAccept, to: packet, []), from: first, now).isEmpty)
    }

    @Test("A silent server is asked last until it has answered something, or its time is over")
    func silence() throws {
        _ = ask(1)
        _ = try wait()
        let moved = try sent(wait())
        #expect(answer(exchanges.received(secret.answer(.accessAccept, to: moved.packet, []), from: second, now)) == .accepted(seconds: nil))
        let other = try sent(ask(2))
        #expect(other.to == second)
        #expect(answer(exchanges.received(secret.answer(.accessAccept, to: other.packet, []), from: second, now)) != nil)
        now = now + RADIUSExchanges.silence
        let back = try sent(ask(3))
        #expect(back.to == first)
        let actions = exchanges.received(secret.answer(.accessAccept, to: back.packet, []), from: first, now)
        #expect(actions.contains { if case .answersAgain(first) = $0 { true } else { false } })
    }

    @Test("What is not signed, comes from elsewhere or answers another is dropped, said once, and the exchange goes on")
    func forged() throws {
        let (packet, server) = try sent(ask(1))
        let good = secret.answer(.accessAccept, to: packet, [])
        #expect(exchanges.received(good, from: second, now).isEmpty)
        #expect(exchanges.received(Array(good.dropLast()), from: server, now).isEmpty)
        var other = packet
        other.identifier &+= 1
        #expect(exchanges.received(secret.answer(.accessAccept, to: other, []), from: server, now).isEmpty)
        let bare = secret.answer(.accessAccept, to: packet, [], isSigned: false)
        let dropped = exchanges.received(bare, from: server, now)
        #expect(dropped.count == 1 && answer(dropped) == nil)
        #expect(exchanges.received(bare, from: server, now).isEmpty, "said once")
        #expect(exchanges.droppedCount == 3)
        #expect(answer(exchanges.received(good, from: server, now)) == .accepted(seconds: nil))
    }

    @Test("No two exchanges under way at a server have one identifier, and beyond the bound nobody is asked")
    func bounds() throws {
        var seen: [Endpoint: Set<UInt8>] = [:]
        for ticket in 0..<UInt64(2 * RADIUSExchanges.exchangesPerServerMax) {
            let (packet, server) = try sent(ask(ticket))
            #expect(seen[server, default: []].insert(packet.identifier).inserted)
        }
        #expect(ask(1000) == nil)
        // Accounts have identifiers of their own.
        #expect(try sent(ask(1001, .accounting)).to.port == 1813)
    }
}
