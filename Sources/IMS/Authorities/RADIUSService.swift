import Glibc
import IMSCore
import Logging
import MATCore
import MATRuntime
import MATSignal
import RADIUS

/// The shell around what RADIUS servers are asked and told: one socket in the loop, timers, and the file of accounts. Nothing here waits.
final class RADIUSService {
    private struct Group {
        let configuration: RADIUSConfiguration
        var exchanges: RADIUSExchanges
        var accounts = AccountingQueue()
        /// Questions under way, by the tickets of their exchanges.
        var questions: [UInt64: AuthorisationTicket] = [:]
    }

    /// What came of what was asked, for the metrics.
    enum Outcome: String, CaseIterable { case accepted, refused, recorded, unanswered }

    private let loop: EventLoop
    private let logger: Logger
    let journal: AccountingJournal?
    private var groups: [Group] = []
    private var socket: UDPSocket?
    private var random = SystemRandomNumberGenerator()
    private var timer: (time: MonotonicTime, id: TimerID)?
    private let hostName: String
    /// In the loop's thread, never while a question is being asked.
    private let answer: (AuthorisationTicket, AuthorisationAnswer) -> Void
    private(set) var outcomes: [Outcome: UInt64] = [:]

    /// - Parameters:
    ///   - servers: of each group, with their secrets.
    ///   - journal: where accounts are kept; `nil` if none are wanted.
    init(
        _ configurations: [RADIUSConfiguration], servers: [[RADIUSServer]], journal: AccountingJournal?, loop: EventLoop, logger: Logger,
        answer: @escaping (AuthorisationTicket, AuthorisationAnswer) -> Void
    ) throws(IMSServerError) {
        self.loop = loop
        self.logger = logger
        self.answer = answer
        self.journal = journal
        hostName = Self.hostName
        groups = zip(configurations, servers).map { configuration, servers in
            Group(
                configuration: configuration,
                exchanges: RADIUSExchanges(servers, wait: configuration.wait, triesMax: configuration.tries))
        }
        do throws(SystemError) {
            socket = try UDPSocket(loop: loop, port: 0) { [unowned self] octets, source, _ in received(Array(octets), source) }
        } catch {
            throw IMSServerError("radius: \(error)")
        }
        tellOfEarlierRun()
    }

    /// No answer comes after this; who waits is told to come later.
    func stop() {
        if let timer { loop.cancel(timer.id) }
        timer = nil
        socket = nil
        for group in groups {
            for ticket in group.questions.values.sorted(by: { $0.number < $1.number }) {
                answer(ticket, .unanswered("the server's configuration changes"))
            }
        }
        groups = []
    }

    private static var hostName: String {
        var buffer = [CChar](repeating: 0, count: 256)
        guard gethostname(&buffer, buffer.count - 1) == 0 else { return "imsd" }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private func tellOfEarlierRun() {
        guard let journal, !journal.waiting.isEmpty else { return }
        logger.notice("accounts that no RADIUS server has yet: \(journal.waiting.count)")
        var strays = 0
        for (_, entry) in journal.waiting.sorted(by: { $0.key < $1.key }) {
            guard let place = groups.firstIndex(where: { $0.configuration.name == entry.name && $0.configuration.accounts }) else {
                strays += 1
                continue
            }
            perform(groups[place].accounts.add(entry.record, now), at: place)
        }
        if strays > 0 { logger.warning("accounts for RADIUS servers that are not configured any more are kept and not told: \(strays)") }
        schedule()
    }

    private var now: MonotonicTime { SystemClock.now().monotonic }

    // MARK: What the core wants

    func ask(_ ticket: AuthorisationTicket, _ question: Authorisation) {
        guard let place = groups.firstIndex(where: { $0.configuration.name == question.authority }) else {
            return answer(ticket, .unanswered("no RADIUS server is configured for it"))
        }
        let configuration = groups[place].configuration
        // Who can't be accounted for gets nothing that would have to be.
        guard !configuration.accounts || groups[place].accounts.hasRoom else {
            return answer(ticket, .unanswered("too many accounts wait for the RADIUS server"))
        }
        guard configuration.authorises else { return answer(ticket, .granted(seconds: nil)) }
        // Even numbers are questions, odd ones accounts.
        let number = ticket.number << 1
        let attributes = [RADIUSAttribute](question, identifier: configuration.identifier ?? hostName)
        guard let actions = groups[place].exchanges.ask(number, .access, attributes, &random, now) else {
            return answer(ticket, .unanswered("too many questions wait for the RADIUS server"))
        }
        groups[place].questions[number] = ticket
        perform(actions, at: place)
        schedule()
    }

    func account(_ change: LeaseChange) {
        guard let place = groups.firstIndex(where: { $0.configuration.name == change.authority && $0.configuration.accounts }), let journal else {
            return
        }
        let attributes = [RADIUSAttribute](change, identifier: groups[place].configuration.identifier ?? hostName)
        let (record, failure) = journal.add(attributes, for: change.authority)
        if let failure { logger.error("accounts are kept in memory alone, and lost if imsd ends: \(failure)") }
        perform(groups[place].accounts.add(record, now), at: place)
        schedule()
    }

    // MARK: Events

    private func received(_ octets: [UInt8], _ source: Endpoint) {
        // Each server's exchanges know what they wait for from there.
        for place in groups.indices {
            let servers = groups[place].exchanges.servers
            guard servers.contains(where: { $0.access == source || $0.accounting == source }) else { continue }
            perform(groups[place].exchanges.received(octets, from: source, now), at: place)
        }
        schedule()
    }

    private func due() {
        for place in groups.indices {
            perform(groups[place].exchanges.due(&random, now), at: place)
            perform(groups[place].accounts.due(now), at: place)
        }
        schedule()
    }

    private func schedule() {
        var next: MonotonicTime?
        for place in groups.indices {
            next = next.earlier(groups[place].exchanges.nextDeadline).earlier(groups[place].accounts.nextDeadline)
        }
        guard let next else { return }
        if let timer {
            guard next < timer.time else { return }
            loop.cancel(timer.id)
        }
        let id = loop.schedule(at: next) { [weak self] in
            self?.timer = nil
            self?.due()
        }
        timer = (next, id)
    }

    // MARK: Actions

    private func perform(_ actions: [AccountingQueue.Action], at place: Int) {
        for action in actions {
            switch action {
            case .ask(let record):
                guard let actions = groups[place].exchanges.ask(record.number << 1 | 1, .accounting, record.attributes, &random, now) else {
                    perform(groups[place].accounts.ended(record.number, isRecorded: false, now), at: place)
                    continue
                }
                perform(actions, at: place)
            case .done(let number): journal?.done(number)
            }
        }
    }

    private func perform(_ actions: [RADIUSExchanges.Action], at place: Int) {
        let name = groups[place].configuration.name
        for action in actions {
            switch action {
            // What the kernel refuses is sent again like what is lost.
            case .send(let octets, let server): if let failure = socket?.send(octets, to: server) { logger.debug("radius \(name): \(failure)") }
            case .answered(let number, let answer): answered(number, answer, at: place)
            case .silent(let server):
                logger.warning(
                    "radius \(name): \(server) does not answer; others are asked first for \(RADIUSExchanges.silence.components.seconds) s")
            case .answersAgain(let server): logger.notice("radius \(name): \(server) answers again")
            case .dropped(let server, let doubt):
                logger.warning("radius \(name): an answer from \(server) is not believed: \(Self.text(doubt))")
            }
        }
    }

    private func answered(_ number: UInt64, _ answer: RADIUSExchanges.Answer, at place: Int) {
        switch answer {
        case .accepted: outcomes[.accepted, default: 0] += 1
        case .refused: outcomes[.refused, default: 0] += 1
        case .recorded: outcomes[.recorded, default: 0] += 1
        case .unanswered: outcomes[.unanswered, default: 0] += 1
        }
        guard number & 1 == 0 else {
            return perform(groups[place].accounts.ended(number >> 1, isRecorded: answer == .recorded, now), at: place)
        }
        guard let ticket = groups[place].questions.removeValue(forKey: number) else { return }
        switch answer {
        case .accepted(let seconds): self.answer(ticket, .granted(seconds: seconds))
        case .refused(let text): self.answer(ticket, .refused("the RADIUS server refuses it\(text.map { ": \($0)" } ?? "")"))
        case .recorded, .unanswered: self.answer(ticket, .unanswered("no RADIUS server answers"))
        }
    }

    private static func text(_ doubt: RADIUSSecret.Doubt) -> String {
        switch doubt {
        case .authenticator, .messageAuthenticator: "it is not made with the secret that the configuration names, or it is forged"
        case .noMessageAuthenticator:
            "it has no Message-Authenticator, without which answers are forged; have the server add it (FreeRADIUS before 3.2.5: see imsd.yaml(5), `radius`)"
        }
    }

    // MARK: Figures

    var accountsWaiting: Int { journal?.waiting.count ?? 0 }
    var sentCount: UInt64 { groups.reduce(0) { $0 &+ $1.exchanges.sentCount } }
    var droppedCount: UInt64 { groups.reduce(0) { $0 &+ $1.exchanges.droppedCount } }
    var questionsWaiting: Int { groups.reduce(0) { $0 + $1.questions.count } }
}
