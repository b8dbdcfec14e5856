import CLinux
import IMSCore
import MATCore
import MATSignal
import MappingMemory

/// Answers queries from the table as `IMSCore` would, octet for octet, in any thread: nothing is allocated, locked or counted by
/// reference on the way.
///
/// ```
///  datagram ──► decode in place ──► look up all ──► size rule, answer each
///                    │                  │
///                    └── not only queries, or with SUBSCRIBE under a valid cookie, or about what only the core knows ──► passed on
/// ```
/// A datagram is answered here as a whole or not at all, since the size rule is about whole datagrams. Logic that is here is also in
/// Queries and SizeRule; `QueryPathTests` compares the two.
struct QueryResponder {
    enum Outcome {
        case answered
        case passedOn
    }

    private let table: MappingView
    private let counters: QueryCounters
    private let rates: QueryRates
    private let queries: UnsafeMutablePointer<Query>
    private let hints: UnsafeMutablePointer<Hint>
    private var text = AnswerText()
    private let decoder: QueryDecoder
    private let inspector: DatagramInspector

    /// - Parameter options: the grammar of messages.
    init(table: MappingView, counters: QueryCounters, options: OptionTable = .standard) {
        self.table = table
        decoder = QueryDecoder(table: options)
        inspector = DatagramInspector(table: options)
        self.counters = counters
        rates = QueryRates()
        queries = .allocate(capacity: SignalDatagram.messagesMax)
        queries.initialize(repeating: Query(), count: SignalDatagram.messagesMax)
        hints = .allocate(capacity: SignalDatagram.messagesMax)
        hints.initialize(repeating: Hint(), count: SignalDatagram.messagesMax)
    }

    func deallocate() {
        rates.deallocate()
        queries.deallocate()
        hints.deallocate()
        text.deallocate()
    }

    /// The caller is a reader of the table's epochs until it has copied or sent what was written.
    mutating func answer(
        _ datagram: UnsafeRawBufferPointer, from source: Endpoint, _ rules: UnsafePointer<QuerySnapshot>, _ now: Now, into writer: inout AnswerWriter
    ) -> Outcome {
        let count = decoder.decode(datagram, into: queries)
        guard count > 0 else { return .passedOn }
        if count > 1 {
            for index in 0..<count { hints[index] = hint(queries[index].address, isHA: queries[index].isHA) }
            for index in 0..<count { prefetchBlock(hints[index]) }
        }
        for index in 0..<count {
            guard lookUp(&queries[index], source, rules, now) else { return .passedOn }
        }
        var sourceIsRegistered: Bool?
        for index in 0..<count where queries[index].isHA {
            let isRegistered = sourceIsRegistered ?? (source.port == SignalPort.node && isCurrent(table.block(holding: source.address), now))
            sourceIsRegistered = isRegistered
            // A mapping that is remembered may be the answer; the core has those.
            if isRegistered, !queries[index].isCurrent, rules.pointee.hasRemembered { return .passedOn }
            // A node may be bound there; the core has the bindings. Who has a cookie is let in as often as one at a translator's address.
            if !isRegistered, queries[index].isValidated, rules.pointee.hasBindings,
                rates.take(source.address, perSecond: rules.pointee.limits.queriesPerSecond * SharedAddresses.times, at: now.monotonic)
            {
                return .passedOn
            }
        }

        var answers = Answers(source: source, sourceIsRegistered: sourceIsRegistered ?? false, allowance: datagram.count)
        for index in 0..<count {
            let following = count - 1 - index
            let allowed = max(0, answers.allowance - following * SizeRule.cookieAnswerOctets)
            counters.add(queries[index].isHA ? .haQueries : .maQueries)
            write(queries[index], allowed, &answers, rules, now, &writer)
        }
        return .answered
    }

    /// What one datagram's answers have in common.
    private struct Answers {
        let source: Endpoint
        let sourceIsRegistered: Bool
        /// Octets that may still go to a source that has not proven that it receives there.
        var allowance: Int
    }

    // MARK: Looking up

    // A look-up waits for memory twice: for the slot of the index, and for the block. For the messages of one datagram, and for the
    // datagrams of one batch, that waiting is done at once: first all slots are asked for, then all blocks, then all is answered.

    /// What is to be looked up soon.
    struct Hint {
        var tag: UInt32 = 0
        var isHA = false
        var isPresent = false
    }

    @inline(__always)
    private func hint(_ address: IPAddress, isHA: Bool) -> Hint {
        let tag = table.hash.tag(address, 128)
        mat_prefetch((isHA ? table.reverse : table.forward).firstSlot(tag))
        return Hint(tag: tag, isHA: isHA, isPresent: true)
    }

    /// Looks only where a query usually has its address, behind COOKIE; what it finds elsewhere costs nothing but time.
    @inline(__always)
    func hint(_ datagram: UnsafeRawBufferPointer) -> Hint {
        guard datagram.count >= 40, let base = datagram.baseAddress else { return Hint() }
        let type = base.load(as: UInt8.self)
        let cookie = Int(base.load(fromByteOffset: 11, as: UInt8.self))
        guard type == MessageType.maQuery.rawValue || type == MessageType.haQuery.rawValue, cookie == 8 || cookie == 24,
            datagram.count >= 32 + cookie
        else { return Hint() }
        let place = base + 16 + cookie
        let address = IPAddress(
            high: UInt64(bigEndian: place.loadUnaligned(as: UInt64.self)),
            low: UInt64(bigEndian: place.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        return hint(address, isHA: type == MessageType.haQuery.rawValue)
    }

    @inline(__always)
    func prefetchBlock(_ hint: Hint) {
        guard hint.isPresent, let block = (hint.isHA ? table.reverse : table.forward).likely(hint.tag) else { return }
        for line in 0..<Self.blockLines { mat_prefetch(block + line * SlabArena.unitOctets) }
    }

    /// Of a mapping with one or two locators.
    private static let blockLines = 6

    @inline(__always)
    private func isCurrent(_ block: MappingBlock?, _ now: Now) -> Bool {
        block.map { $0.expires > now.wallMilliseconds } ?? false
    }

    /// - Returns: whether it can be answered here.
    @inline(__always)
    private func lookUp(_ query: inout Query, _ source: Endpoint, _ rules: UnsafePointer<QuerySnapshot>, _ now: Now) -> Bool {
        if query.hasServerCookie {
            query.isValidated = rules.pointee.cookies.isValid(query.serverCookie, clientCookie: query.clientCookie, from: source, now: now)
        }
        if query.isHA {
            query.block = table.block(holding: query.address)
        } else {
            // A subscription is state, which the core keeps.
            if query.isValidated, query.subscribe > 0 { return false }
            query.block = table.block(covering: query.address)
        }
        query.isCurrent = isCurrent(query.block, now)
        return true
    }

    // MARK: Answering

    /// What an answer consists of beside cookie and address.
    private struct Content {
        var code = ResponseCode.ok
        /// Octets of the block's options.
        var options = 0
        var lifetime: UInt32?
        var hasText = false
    }

    @inline(__always)
    private mutating func write(
        _ query: Query, _ allowed: Int, _ answers: inout Answers, _ rules: UnsafePointer<QuerySnapshot>, _ now: Now, _ writer: inout AnswerWriter
    ) {
        let fresh = rules.pointee.cookies.make(for: answers.source, clientCookie: query.clientCookie, now: now)
        if query.isHA, !query.isValidated, !answers.sourceIsRegistered, rules.pointee.hasBindings {
            return askForCookie(query, fresh, allowed, &answers, &writer)
        }
        let content = query.isHA ? haContent(query, answers, rules, now) : maContent(query, rules)
        var cookie: ServerCookie? = fresh
        var hasText = content.hasText
        // Header, COOKIE and the address.
        var octets = 8 + 28 + 20 + content.options + (content.lifetime == nil ? 0 : 8) + (hasText ? text.optionOctets : 0)
        if !query.isValidated {
            // The answer whole, without TEXT, and without the server cookie as well if the request was too short to want one.
            if octets > allowed, hasText {
                hasText = false
                octets -= text.optionOctets
            }
            if octets > allowed, query.octetsCount < SizeRule.cookieWantedOctets {
                cookie = nil
                octets -= 16
            }
            if octets > allowed { return askForCookie(query, fresh, allowed, &answers, &writer) }
            answers.allowance -= octets
        }
        writer.begin(query.isHA ? .haAnswer : .maAnswer, content.code, query.sequence, octets: octets)
        writer.cookie(query.clientCookie, cookie)
        writer.address(query.isHA ? .moa : .hoa, query.address)
        if content.options > 0, let block = query.block { writer.options(block.options, content.options) }
        if let lifetime = content.lifetime { writer.lifetime(lifetime) }
        if hasText { writer.text(text) }
        counters.answered(content.code.rawValue, isHA: query.isHA)
    }

    private func askForCookie(
        _ query: Query, _ fresh: ServerCookie, _ allowed: Int, _ answers: inout Answers, _ writer: inout AnswerWriter
    ) {
        guard query.octetsCount >= SizeRule.cookieAnswerOctets, allowed >= SizeRule.cookieAnswerOctets else { return }
        answers.allowance -= SizeRule.cookieAnswerOctets
        writer.begin(query.isHA ? .haAnswer : .maAnswer, .cookieRequired, query.sequence, octets: SizeRule.cookieAnswerOctets)
        writer.cookie(query.clientCookie, fresh)
        counters.answered(ResponseCode.cookieRequired.rawValue, isHA: query.isHA)
    }

    /// As `Queries.answer` to MA Query.
    @inline(__always)
    private mutating func maContent(_ query: Query, _ rules: UnsafePointer<QuerySnapshot>) -> Content {
        guard rules.pointee.serves(query.address) else {
            text.set("no prefix served here covers ", query.address)
            return Content(code: .notAuthoritative, hasText: true)
        }
        if rules.pointee.isIncomplete, query.block?.prefixLength != 128 { return later(rules) }
        guard query.isCurrent, let block = query.block else { return Content(code: .notFound, lifetime: rules.pointee.limits.notFoundSeconds) }
        let isKnown = query.certificateID == block.certificateID
        return Content(options: block.recordOptionsOctets + (isKnown ? 0 : MappingBlock.certificateOptionOctets))
    }

    /// As `Queries.answer` to HA Query.
    private mutating func haContent(_ query: Query, _ answers: Answers, _ rules: UnsafePointer<QuerySnapshot>, _ now: Now) -> Content {
        guard !query.isValidated || rates.take(answers.source.address, perSecond: rules.pointee.limits.queriesPerSecond, at: now.monotonic) else {
            return Content(code: .tryLater, lifetime: 1)
        }
        guard answers.sourceIsRegistered else {
            if rules.pointee.isIncomplete { return later(rules) }
            text.set("", answers.source.address, Queries.unlistedSource)
            return Content(code: .refused, hasText: true)
        }
        guard query.isCurrent, let block = query.block else {
            if rules.pointee.isIncomplete { return later(rules) }
            return Content(code: .notFound, lifetime: min(Queries.strangerNotFoundSecondsMax, rules.pointee.limits.notFoundSeconds))
        }
        return Content(options: block.recordOptionsOctets + MappingBlock.certificateOptionOctets)
    }

    /// As `StoreState.unknown`.
    private mutating func later(_ rules: UnsafePointer<QuerySnapshot>) -> Content {
        let isForLong = rules.pointee.isUnknownForLong
        text.set(isForLong ? StoreState.partTextStatic : StoreState.loadingTextStatic)
        return Content(code: .tryLater, lifetime: isForLong ? StoreState.unavailableSeconds : StoreState.loadingSeconds, hasText: true)
    }

    // MARK: Refusing

    /// What a datagram is that can't be answered here.
    func inspect(_ datagram: UnsafeRawBufferPointer) -> DatagramInspector.Result { inspector.inspect(datagram) }

    /// Whether responses may be what this server has asked for: nobody knows the cookie but who was sent it, from the address that the responses
    /// came to, or from whichever the kernel chose.
    func areAsked(
        _ responses: ResponseHeads, from source: IPAddress, to local: IPAddress, _ rules: UnsafePointer<QuerySnapshot>
    ) -> Bool {
        switch responses {
        case .none: return true
        case .unasked: return false
        case .under(let client):
            let cookies = rules.pointee.clientCookies
            return client == cookies.cookie(server: source, own: local) || client == cookies.cookie(server: source, own: .unspecifiedIPv6)
        }
    }

    /// Whether the source has proven that it receives there.
    @inline(__always)
    func isProven(_ request: RequestHead, _ source: Endpoint, _ rules: UnsafePointer<QuerySnapshot>, _ now: Now) -> Bool {
        guard let cookie = request.serverCookie else { return false }
        return rules.pointee.cookies.isValid(cookie, clientCookie: request.clientCookie, from: source, now: now)
    }

    /// As `SizeRule.answer` does for all but queries: code 9, if the request was as long as that answer. To a Bind that asks for nothing but what
    /// source is seen, code 0 says that in as many octets.
    func answerFirst(
        _ request: RequestHead, _ octetsCount: Int, _ source: Endpoint, _ rules: UnsafePointer<QuerySnapshot>, _ now: Now,
        into writer: inout AnswerWriter
    ) {
        let octets = SizeRule.cookieAnswerOctets(to: request.type)
        guard octetsCount >= octets || isProven(request, source, rules, now) else { return }
        let fresh = rules.pointee.cookies.make(for: source, clientCookie: request.clientCookie, now: now)
        let code = request.isAsk ? ResponseCode.ok : .cookieRequired
        writer.begin(request.type.response, code, request.sequence, octets: octets)
        writer.cookie(request.clientCookie, fresh)
        if request.type == .bind { writer.observed(source, request.clientCookie) }
        counters.answered(request.type, code)
    }

    /// As `PutOff.answer` does for a notify under a valid cookie: code 7, and when to come again.
    func putOff(
        _ request: RequestHead, _ source: Endpoint, _ rules: UnsafePointer<QuerySnapshot>, _ now: Now, into writer: inout AnswerWriter
    ) {
        // A Join Reply that gives nothing has no HOA.
        let hoa = request.type == .join ? nil : request.hoa
        guard hoa != nil || request.type == .join else { return }
        let fresh = rules.pointee.cookies.make(for: source, clientCookie: request.clientCookie, now: now)
        // Header, COOKIE, HOA, LIFETIME.
        writer.begin(request.type.response, .tryLater, request.sequence, octets: 8 + 28 + (hoa == nil ? 0 : 20) + 8)
        writer.cookie(request.clientCookie, fresh)
        if let hoa { writer.address(.hoa, hoa) }
        writer.lifetime(PutOff.seconds)
        counters.answered(request.type, .tryLater)
        counters.add(.putOff)
    }
}
