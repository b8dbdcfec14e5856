import MATCore
import MATSignal

/// A home address that is looked up, once or again and again:
///
/// ```
///   looking up ── the DNS names servers ──► asking ── an answer, verified ──► told; once: ended
///      ▲   │ plain, failed                    │ silence, a refusal              │ watched
///      │   ▼                                  ▼                                 ▼
///      │  told; once: ended ◄─────────────────┘                              resting ◄── MA Notify: a newer record, verified, is told
///      └──────────────── half of the subscription, 30 s without one, or the record's end ──┘
/// ```
/// What it holds never goes back to an older record (protocol.md section 4). News are told only if they are.
struct Following: Sendable {
    enum Purpose: Sendable {
        case once
        case watch
    }

    enum Action: Sendable {
        /// Ask the DNS for its mapping servers; then `lookedUp`.
        case lookUp(HomeAddress)
        case send([UInt8], to: Endpoint)
        case tell(WatchNews)
        /// It is over.
        case end
    }

    private enum State: Sendable {
        case lookingUp
        case asking(Inquiry)
        case resting(until: MonotonicTime)
        case ended
    }

    /// Asked for, in seconds; what a server grants is at most this (protocol.md section 7, "Limits").
    static let subscribeSeconds: UInt32 = 300
    /// Between questions where no subscription was granted.
    static let pollInterval: Duration = .seconds(30)
    private static let restMin: Duration = .seconds(1)
    private static let failureRestMax: Duration = .seconds(30)
    /// How long absence is believed.
    private static let plainRest: ClosedRange<Duration> = .seconds(5) ... .seconds(300)

    let hoa: HomeAddress
    let purpose: Purpose
    private var state = State.lookingUp
    private var keys: [PublicKey] = []
    private var known: Inquiry.Acquaintance?
    private var held: CertifiedMapping?
    private var told: WatchNews?
    /// In a row.
    private var failures = 0

    init(_ hoa: HomeAddress, _ purpose: Purpose) {
        self.hoa = hoa
        self.purpose = purpose
    }

    /// Of the question that is under way.
    var sequence: UInt32? { if case .asking(let inquiry) = state { inquiry.sequence } else { nil } }

    var due: MonotonicTime? {
        switch state {
        case .lookingUp, .ended: nil
        case .asking(let inquiry): inquiry.due
        case .resting(let until): until
        }
    }

    mutating func begin() -> [Action] {
        state = .lookingUp
        return [.lookUp(hoa)]
    }

    // MARK: Questions and answers

    mutating func lookedUp(_ result: IMSLookupResult, random: inout some RandomNumberGenerator, _ now: Now) -> [Action] {
        guard case .lookingUp = state else { return [] }
        switch result {
        case .found(let set):
            keys = set.keys.compactMap { PublicKey($0) }
            let inquiry = Inquiry(
                hoa, servers: set.ordered(using: &random).flatMap(\.endpoints), known: known,
                subscribe: purpose == .watch ? Self.subscribeSeconds : nil, certificate: held?.certificate.id, random: &random, now.monotonic)
            state = .asking(inquiry)
            return due(random: &random, now)
        case .absent(let until):
            let rest = min(max(until - now.monotonic, Self.plainRest.lowerBound), Self.plainRest.upperBound)
            return tell(.found(.plain), rest: rest, now)
        case .failed(let reason): return fail(.names, "the DNS gives no answer for \(hoa): \(reason)", now)
        case .unusable(let reason): return fail(.distrust, "what the DNS says of \(hoa) can't be used: \(reason)", now)
        }
    }

    mutating func due(random: inout some RandomNumberGenerator, _ now: Now) -> [Action] {
        switch state {
        case .asking(var inquiry):
            let event = inquiry.takeDue(random: &random, now.monotonic)
            state = .asking(inquiry)
            return happened(event, now)
        case .resting(let until) where until <= now.monotonic: return begin()
        case .resting, .lookingUp, .ended: return []
        }
    }

    /// - Returns: `nil` if it is no answer to this.
    mutating func received(_ answer: MAAnswer, _ sequence: UInt32, from source: Endpoint, random: inout some RandomNumberGenerator, _ now: Now)
        -> [Action]?
    {
        guard case .asking(var inquiry) = state,
            let event = inquiry.received(answer, sequence, from: source, random: &random, now.monotonic)
        else { return nil }
        state = .asking(inquiry)
        known = inquiry.acquaintance ?? known
        return happened(event, now)
    }

    private mutating func happened(_ event: Inquiry.OnEvent, _ now: Now) -> [Action] {
        switch event {
        case .nothing: return []
        case .send(let octets, let server): return [.send(octets, to: server)]
        case .silent: return fail(.silence, "no mapping server of \(hoa) answers", now)
        case .answered(let answer): return answered(answer, now)
        }
    }

    private mutating func answered(_ answer: MAAnswer, _ now: Now) -> [Action] {
        switch answer.code {
        case .notFound:
            return tell(.found(.unregistered), rest: .seconds(Int64(answer.lifetime ?? 0)), now)
        case .ok:
            guard let mapping = answer.mapping, let certificate = answer.certificate ?? held?.certificate else {
                return fail(.unverified, "the mapping server's answer has no mapping of \(hoa), or no certificate", now)
            }
            do throws(VerificationFailure) {
                let certified = CertifiedMapping(mapping: mapping, certificate: certificate)
                try certified.verify(asked: hoa, keys: keys, now: now)
                return found(certified, subscribed: answer.subscribe, now)
            } catch {
                return fail(.unverified, error.reason, now)
            }
        case let code:
            return fail(.refusal(code), "the mapping server says \(code)\(answer.text.map { ": \($0.printable)" } ?? "")", now)
        }
    }

    private mutating func found(_ certified: CertifiedMapping, subscribed: UInt32?, _ now: Now) -> [Action] {
        if held.map({ !($0.version > certified.version) }) ?? true { held = certified }
        guard let held, held.record.expires > now.wallMilliseconds else { return tell(.found(.unregistered), rest: Self.restMin, now) }
        let left = Duration.milliseconds(Int64(clamping: held.record.expires - now.wallMilliseconds))
        let rest = subscribed.map { Duration.seconds(Int64($0 / 2)) } ?? Self.pollInterval
        return tell(.found(Whereabouts(held)), rest: min(rest, left), now)
    }

    // MARK: Pushes

    /// Someone says where the home address is: the mapping server that was asked to, or whoever has the record.
    ///
    /// - Returns: what to answer, and what else to do; `nil` if nobody here wants to know.
    mutating func pushed(_ record: EnclosedRecord, _ now: Now) -> (answer: ResponseCode, current: SignedMapping?, actions: [Action])? {
        guard purpose == .watch, record.mapping.record.prefix.contains(hoa.address) else { return nil }
        let certificate: Certificate
        switch record.certificate {
        case .whole(let enclosed): certificate = enclosed
        case .id(let id):
            guard let held, held.certificate.id == id else { return (.authenticationFailed, nil, []) }
            certificate = held.certificate
        }
        let certified = CertifiedMapping(mapping: record.mapping, certificate: certificate)
        if let held, held.mapping == certified.mapping { return (.ok, nil, []) }
        if let held, held.version > certified.version { return (.stale, held.mapping, []) }
        // Before the first answer of the DNS nobody's word can be checked.
        guard !keys.isEmpty else { return (.tryLater, nil, []) }
        guard (try? certified.verify(asked: hoa, keys: keys, now: now)) != nil else { return (.authenticationFailed, nil, []) }
        held = certified
        guard certified.record.expires > now.wallMilliseconds else { return (.ok, nil, []) }
        return (.ok, nil, news(.found(Whereabouts(certified))))
    }

    // MARK: What is told

    private mutating func fail(_ cause: LookUpFailure.Cause, _ description: String, _ now: Now) -> [Action] {
        failures += 1
        let rest = min(Self.restMin * (1 << min(failures - 1, 8)), Self.failureRestMax)
        return rested(news(.failed(LookUpFailure(cause, description))), rest, now)
    }

    private mutating func tell(_ news: WatchNews, rest: Duration, _ now: Now) -> [Action] {
        failures = 0
        return rested(self.news(news), rest, now)
    }

    private mutating func rested(_ actions: [Action], _ rest: Duration, _ now: Now) -> [Action] {
        guard purpose == .watch else {
            state = .ended
            return actions + [.end]
        }
        state = .resting(until: now.monotonic + max(rest, Self.restMin))
        return actions
    }

    private mutating func news(_ news: WatchNews) -> [Action] {
        guard isOther(news) else { return [] }
        told = news
        return [.tell(news)]
    }

    /// A record that its node signs again and again, without moving, is no news; nor is the same trouble in other words.
    private func isOther(_ news: WatchNews) -> Bool {
        switch (news, told) {
        case (.found(.registered(let new)), .found(.registered(let old))?): new.record.places != old.record.places
        case (.found(.withdrawn), .found(.withdrawn)?), (.found(.revoked), .found(.revoked)?): false
        case (.failed(let new), .failed(let old)?): new.cause != old.cause
        default: news != told
        }
    }
}
