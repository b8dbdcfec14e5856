import IMTPlan
import MATCore
import MATSignal

// Signalling within encapsulated paths: own probes (`InPathProbes`), and others', which are answered the way that they came.

extension NodeCore {
    /// A message came inside an encapsulated packet, from an endpoint that is accepted for its peer.
    public mutating func arrivedInPath(_ message: InPathMessage, now: Now) -> [NodeAction] {
        // One message and what fills the packet; more of them have no meaning.
        guard case .message(let signal, _)? = SignalDatagram.decode(message.octets, isInPath: true).first, peers[message.pair.peer] != nil else {
            counters.malformedDropped += 1
            return endEvent()
        }
        counters.messagesReceived += 1
        heardByRelay(message, now)
        switch signal.body {
        case .pathProbe(let probe): probedInPath(probe, signal.sequence, message, now)
        case .pathAnswer(let answer): answeredInPath(answer, signal.sequence, message, now)
        default: counters.unmatchedDropped += 1
        }
        runPaths(now)
        return endEvent()
    }

    // MARK: Our probes

    /// Probes a path from within, whichever carries the peer's packets. What becomes of it, `ended` is told.
    ///
    /// - Parameters:
    ///   - octets: of the packet inside the datagram, filled with zeros; `nil`: as small as can be.
    ///   - wait: how long an answer is waited for.
    /// - Returns: whether it is on its way.
    @discardableResult
    mutating func probeInPath(
        _ hoa: HomeAddress, from own: Endpoint, to far: Endpoint, for purpose: InPathProbes.Purpose, octets: Int? = nil, candidates: [Candidate] = [],
        wait: Duration, _ now: Now
    ) -> Bool {
        guard let home = home(for: hoa) else { return false }
        let probe = InPathProbes.Probe(hoa: hoa, own: own, far: far, purpose: purpose, sentAt: now.monotonic)
        guard let question = inPathProbes.begin(probe, for: wait, random: &random) else { return false }
        let message = SignalMessage(
            sequence: question.sequence,
            .pathProbe(PathProbe(cookie: Cookie(client: question.cookie), hoa: hoa, peerHoA: home, candidates: candidates)))
        counters.probesSent += 1
        let payload = octets.map { $0 - InPathMessage.headerOctets(hoa.family) } ?? 0
        var packet = InPathMessage(SignalDatagram.fill(payload, with: message), between: HomePair(own: home, peer: hoa), from: own, to: far)
        packet.lacksSum = purpose == .noSum
        postInPath(packet)
        deadlines.set(.inPath, at: inPathProbes.nextDue ?? now.monotonic + wait)
        return true
    }

    private mutating func answeredInPath(_ answer: PathAnswer, _ sequence: UInt32, _ message: InPathMessage, _ now: Now) {
        let question = InPathProbes.Question(sequence: sequence, cookie: answer.cookie.client)
        guard answer.code == .ok, answer.hoa == message.pair.peer,
            let probe = inPathProbes.answered(question, by: message.pair.peer, from: message.far, to: message.own)
        else {
            counters.unmatchedDropped += 1
            return
        }
        ended(probe, after: now.monotonic - probe.sentAt, now)
    }

    mutating func inPathDue(_ now: Now) {
        while let probe = inPathProbes.takeDue(now.monotonic) { ended(probe, after: nil, now) }
        if let due = inPathProbes.nextDue { deadlines.set(.inPath, at: due) } else { deadlines.cancel(.inPath) }
    }

    /// A probe has come to its end.
    ///
    /// - Parameter time: the way there and back took; `nil`: no answer came.
    private mutating func ended(_ probe: InPathProbes.Probe, after time: Duration?, _ now: Now) {
        switch probe.purpose {
        case .candidates: candidatesTold(probe, isAnswered: time != nil, now)
        case .noSum, .withSum: if time != nil { sumAnswered(probe, now) }
        case .size(let size): if time != nil { sizeAnswered(size, probe, now) }
        case .relay: relayProbed(probe, after: time, now)
        }
    }

    // MARK: Others' probes

    /// A peer wants to know whether a path carries packets: it is answered over the same, with its own cookie.
    private mutating func probedInPath(_ probe: PathProbe, _ sequence: UInt32, _ message: InPathMessage, _ now: Now) {
        guard probe.challenge == nil, probe.hoa == message.pair.own, probe.peerHoA == message.pair.peer,
            home(speakingFor: probe.hoa) != nil, requests.answersInPath(probe.peerHoA, now.monotonic)
        else {
            counters.unmatchedDropped += 1
            return
        }
        let answer = PathAnswer(code: .ok, cookie: Cookie(client: probe.cookie.client), hoa: probe.hoa)
        counters.messagesSent += 1
        postInPath(
            InPathMessage(
                SignalMessage(sequence: sequence, .pathAnswer(answer)).octets, between: message.pair, from: message.own, to: message.far))
        candidatesOffered(probe.candidates, by: probe.peerHoA, message, now)
    }

    private mutating func postInPath(_ message: InPathMessage) {
        flushChanges()
        emit(.sendInPath(message))
    }
}
