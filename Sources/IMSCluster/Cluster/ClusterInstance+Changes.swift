import IMS
import MATSignal

// Changes: batches of conditional puts, one transaction each, and what came of every single one.

extension ClusterInstance {
    /// What the core wants durable.
    mutating func commit(_ commits: [(StoreTicket, StoreChange)], _ now: Now) -> [Action] {
        for (ticket, change) in commits { changes.add(ticket, change, now: now.monotonic) }
        if isUnavailable {
            // The core refuses by itself once it knows; these had already left.
            fail(changes.takeOverdue(since: .distantFuture), trouble)
        }
        sendChanges(now)
        defer { actions = [] }
        return actions
    }

    /// One transaction at once, more only when they are full: the busier, the larger.
    mutating func sendChanges(_ now: Now) {
        guard link == .up, !isUnavailable, changes.canSend else { return }
        while changes.batchesCount < Self.batchesMax, changes.batchesCount == 0 || changes.waitingCount >= Self.operationsMax {
            let batch = changes.nextBatch(operationsMax: Self.operationsMax)
            guard !batch.isEmpty else { return }
            let operations = batch.flatMap { conditionalPuts(of: $0.change) }
            let id = callID(.changes, .transaction(EtcdTransaction(success: operations)))
            changes.sent(batch, as: id)
        }
    }

    private func conditionalPuts(of change: StoreChange) -> [EtcdOperation] {
        var operations: [EtcdOperation] = []
        if let mapping = change.mapping {
            operations.append(
                Self.putIfNewer(
                    EtcdPut(key: keys.octets(.mapping(mapping.record.prefix)), value: ClusterValue.encode(mapping)),
                    than: ClusterValue.version(mapping.certified.version)))
        }
        if let certificate = change.issued {
            operations.append(
                Self.putIfNewer(
                    EtcdPut(key: keys.octets(.certificate(certificate.prefix)), value: ClusterValue.encode(certificate)),
                    than: ClusterValue.version(certificate)))
        }
        return operations
    }

    /// Puts if the key's value sorts before `version`, or if there is none; else reads what is there. A comparison of values fails
    /// for a missing key, hence the second question. Nested, so that one refusal in a batch is nobody else's.
    static func putIfNewer(_ put: EtcdPut, than version: [UInt8]) -> EtcdOperation {
        let ifAbsent = EtcdTransaction(
            compare: [.absent(put.key)], success: [.put(put)], failure: [.range(EtcdRange(key: put.key))])
        return .transaction(
            EtcdTransaction(compare: [.less(put.key, than: version)], success: [.put(put)], failure: [.transaction(ifAbsent)]))
    }

    private enum PutResult {
        case done
        case refused(EtcdKeyValue?)
    }

    private func result(of response: EtcdResponse) -> PutResult {
        if response.succeeded { return .done }
        guard let inner = response.responses.first, !inner.succeeded else { return .done }
        return .refused(inner.responses.first?.pairs.first)
    }

    mutating func finishChanges(_ call: UInt64, _ response: EtcdResponse, _ now: Now) {
        let batch = changes.answered(call)
        guard response.responses.count == batch.reduce(0, { $0 + $1.change.operationsCount }) else {
            return fail(batch, "etcd's answer does not fit what was asked")
        }
        var results = response.responses[...]
        var outcomes: [StoreOutcome] = []
        for waiting in batch {
            var outcome = StoreOutcome.Result.durable
            if let mapping = waiting.change.mapping {
                if let answer = results.popFirst(), case .refused(let pair) = result(of: answer) {
                    let current = pair.flatMap { ClusterValue.mapping($0.value) }
                    // Itself, if it is asked again after its answer was lost.
                    if let current, current.certified != mapping.certified {
                        outcome = .outrun(by: current)
                    } else if current == nil {
                        outcome = .failed("what etcd holds about \(mapping.record.prefix) can't be read")
                    }
                }
            }
            if let certificate = waiting.change.issued {
                if let answer = results.popFirst(), case .refused(let pair) = result(of: answer), outcome == .durable,
                    pair.flatMap({ ClusterValue.certificate($0.value) }) != certificate
                {
                    outcome = .failed("another server of this IMS has just issued a newer certificate of \(certificate.prefix)")
                }
            }
            // Known before the watch tells it: who is then handed a subscriber by an earlier event pushes it.
            if outcome == .durable, let mapping = waiting.change.mapping {
                living.subscriptions.noteChange(of: mapping.record.prefix, at: response.revision)
            }
            outcomes.append(StoreOutcome(waiting.ticket, outcome))
        }
        if !outcomes.isEmpty { actions.append(.deliver(.committed(outcomes))) }
    }

    mutating func batchFailed(_ call: UInt64, _ error: EtcdError, _ now: Now) {
        switch error.kind {
        case .unreachable, .unauthenticated:
            changes.putBack(call)
        case .unavailable:
            // No leader, most likely: the next answered sign of life says when to go on.
            changes.putBack(call)
            changes.canSend = false
        case .compacted, .noSpace, .refused:
            if error.kind == .noSpace { declareUnavailable(error.description) }
            fail(changes.answered(call), error.description)
        }
    }

    mutating func failOverdueChanges(_ now: Now) {
        let isAnswering = answeredAt + Self.patience > now.monotonic
        let time = isAnswering ? Self.busyChangeTimeMax : Self.changeTimeMax
        fail(changes.takeOverdue(since: now.monotonic + (.zero - time)), isAnswering ? "etcd is too slow" : trouble)
    }

    private mutating func fail(_ changes: [ChangeQueue.Waiting], _ reason: String) {
        guard !changes.isEmpty else { return }
        actions.append(.deliver(.committed(changes.map { StoreOutcome($0.ticket, .failed(reason)) })))
    }
}
