import IMSCore
import MATRuntime
import RADIUS

extension IMSServer {
    /// Has these servers asked and told from now on. If that can't be, those before go on.
    func changeRADIUS(to fresh: IMSConfiguration) throws(IMSServerError) {
        var servers: [[RADIUSServer]] = []
        for group in fresh.radius { servers.append(try group.serversWithSecrets()) }
        guard fresh.radius != configuration.radius || servers != radiusServers || radius == nil else { return }
        guard !fresh.radius.isEmpty else {
            radius?.stop()
            radius = nil
            radiusServers = []
            return
        }
        var journal = radius?.journal
        if journal == nil, fresh.radius.contains(where: \.accounts) { journal = try openJournal() }
        let reference = UncheckedReference(self)
        let poster = loop.poster
        // It tells what the one before has not told to its end; twice told is told once, by the session's name.
        let next = try RADIUSService(fresh.radius, servers: servers, journal: journal, loop: loop, logger: logger) { ticket, answer in
            // Posted: an answer may be there before the question has been asked to its end.
            poster.post { reference.value?.run { core, now in core.authorised(ticket, answer, now: now) } }
        }
        radius?.stop()
        radius = next
        radiusServers = servers
    }

    private func openJournal() throws(IMSServerError) -> AccountingJournal? {
        guard let path = configuration.accountsPath else { return nil }
        do throws(SystemError) {
            return try AccountingJournal(path: path)
        } catch {
            throw IMSServerError(
                "radius: accounts can't be kept: \(error); give the directory to the user that imsd runs as, or name another file as `accounts-file`")
        }
    }

    func authorise(_ ticket: AuthorisationTicket, _ question: Authorisation) {
        if let radius { return radius.ask(ticket, question) }
        let reference = UncheckedReference(self)
        loop.poster.post { reference.value?.run { core, now in core.authorised(ticket, .unanswered("no RADIUS server is configured"), now: now) } }
    }

    func addRADIUSMetrics() {
        func add(
            _ name: String, _ help: String, _ kind: IMSMetrics.Source.Kind, _ labels: [(String, String)] = [],
            _ read: @escaping (RADIUSService) -> Double
        ) {
            let reference = UncheckedReference(self)
            metrics.add(IMSMetrics.Source(name: name, help: help, kind: kind, labels: labels) { reference.value?.radius.map(read) ?? 0 })
        }
        add("imsd_radius_requests_total", "Requests sent to RADIUS servers, repetitions included.", .counter) { Double($0.sentCount) }
        for outcome in RADIUSService.Outcome.allCases {
            add(
                "imsd_radius_answers_total", "What came of requests to RADIUS servers.", .counter, [("answer", outcome.rawValue)]
            ) { Double($0.outcomes[outcome] ?? 0) }
        }
        add("imsd_radius_dropped_total", "Answers that no RADIUS server made, or without Message-Authenticator.", .counter) {
            Double($0.droppedCount)
        }
        add("imsd_radius_questions", "Joins that wait for a RADIUS server.", .gauge) { Double($0.questionsWaiting) }
        add("imsd_accounts_waiting", "Accounts of leases that no RADIUS server has yet.", .gauge) { Double($0.accountsWaiting) }
    }
}
