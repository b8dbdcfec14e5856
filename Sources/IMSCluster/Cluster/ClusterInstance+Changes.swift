import IMSCore
import MATSignal

// Changes: batches of conditional puts, one transaction each, and what came of every single one.

extension ClusterInstance {
    /// What the core wants durable.
    mutating func commit(_ commits: [(StoreTicket, StoreChange)], _ now: Now) -> [Action] {
        for (ticket, change) in commits { changes.add(ticket, change, now: now.monotonic) }
        if availability.isUnavailable {
            // The core refuses by itself once it knows; these had already left.
            fail(changes.takeOverdue(since: .distantFuture), availability.trouble)
        }
        sendChanges(now)
        return takeActions()
    }

    /// One transaction at once, more only when they are full: the busier, the larger.
    mutating func sendChanges(_ now: Now) {
        guard link.isUp, !availability.isUnavailable, changes.canSend else { return }
        while changes.batchesCount < Self.batchesMax, changes.batchesCount == 0 || changes.waitingCount >= Self.operationsMax {
            let batch = changes.nextBatch(operationsMax: Self.operationsMax)
            guard !batch.isEmpty else { return }
            let operations = batch.flatMap { conditionalPuts(of: $0) }
            let id = callID(.changes, .transaction(EtcdTransaction(success: operations)))
            changes.sent(batch, as: id)
        }
    }

    private func conditionalPuts(of waiting: ChangeQueue.Waiting) -> [EtcdOperation] {
        let change = waiting.change
        var operations: [EtcdOperation] = []
        if let mapping = change.mapping {
            let put = EtcdPut(key: keys.octets(.mapping(mapping.record.prefix)), value: ClusterValue.encode(mapping))
            let ifNewer = waiting.overRevision.map { Self.put(put, over: $0) } ?? Self.putIfNewer(put, mapping.certified.version)
            operations.append(Self.put(put, overBeginningsAfter: change.latest, else: ifNewer))
        }
        if let certificate = change.issued {
            let put = EtcdPut(key: keys.octets(.certificate(certificate.prefix)), value: ClusterValue.encode(certificate))
            operations.append(
                Self.put(
                    put, overBeginningsAfter: change.latest, else: Self.putIfNewer(put, than: ClusterValue.version(certificate))))
        }
        if !change.rows.isEmpty { operations.append(.transaction(rowsTransaction(change))) }
        return operations
    }

    /// All rows, if each is the next version of what etcd has, and the mappings are those that they rely on; else what etcd has.
    private func rowsTransaction(_ change: StoreChange) -> EtcdTransaction {
        var transaction = EtcdTransaction()
        for row in change.rows {
            let key = keys.octets(.row(row.kind, key: row.key))
            if row.version <= 1 {
                transaction.compare.append(.absent(key))
            } else {
                transaction.compare.append(.greater(key, than: ClusterValue.rowBeginning(row.version - 1)))
                transaction.compare.append(.less(key, than: ClusterValue.rowBeginning(row.version)))
            }
            transaction.success.append(.put(EtcdPut(key: key, value: ClusterValue.encode(row))))
            transaction.failure.append(.range(EtcdRange(key: key)))
        }
        for certificate in change.certificates {
            let put = EtcdPut(key: keys.octets(.certificate(certificate.prefix)), value: ClusterValue.encode(certificate))
            transaction.success.append(Self.putIfNewer(put, than: ClusterValue.version(certificate)))
        }
        for mapping in change.relied {
            let key = keys.octets(.mapping(mapping.prefix))
            if let version = mapping.version {
                transaction.compare.append(.greater(key, than: ClusterValue.version(version)))
                transaction.compare.append(.less(key, than: ClusterValue.end(of: version)))
            } else {
                transaction.compare.append(.absent(key))
            }
            // Whoever was wrong about it has to be told of it before he looks again.
            transaction.failure.append(.range(EtcdRange(key: key)))
        }
        return transaction
    }

    /// - Returns: what etcd has of the rows instead of what they replace, and since which revision all that the change was compared with; `nil` if
    ///   they are written, now or when their answer was lost.
    private func conflict(_ change: StoreChange, _ answer: EtcdResponse) -> (held: [StoredRow], revision: Int64)? {
        guard !answer.succeeded else { return nil }
        let held = zip(change.rows, answer.responses).map { row, response in
            response.pairs.first.flatMap { ClusterValue.row(row.kind, key: row.key, $0.value) }
                ?? StoredRow(row.kind, key: row.key, value: [], version: 0)
        }
        let revision = answer.responses.compactMap { $0.pairs.first?.modRevision }.max() ?? 0
        return held == change.rows ? nil : (held, revision)
    }

    /// Puts if the key's value sorts before `version`, or if there is none; else reads what is there. A comparison of values fails
    /// for a missing key, hence the second question. Nested, so that one refusal in a batch is nobody else's.
    static func putIfNewer(_ put: EtcdPut, than version: [UInt8]) -> EtcdOperation { putIf([.less(put.key, than: version)], put) }

    /// The same for a record, as far as etcd can compare. Which of two records is newer depends on whether their keys are the same
    /// (`RecordVersion`), and a value's octets don't say that in their order. But under certificates of one beginning, which is nearly
    /// always the same certificate, the higher sequence is newer whosever the keys are: that is put at once. All else is read, compared
    /// here, and put over what was read (`put(_:over:)`): one round trip more, when a node's certificate changes.
    ///
    /// - Parameter suffix: what follows the version in the value and counts after it.
    static func putIfNewer(_ put: EtcdPut, _ version: RecordVersion, suffix: [UInt8] = []) -> EtcdOperation {
        putIf(
            [
                .greater(put.key, than: ClusterValue.beginning(version)),
                .less(put.key, than: ClusterValue.version(version) + suffix),
            ], put)
    }

    /// Puts over what was written at that revision and compared with; reads if it was written again since.
    static func put(_ put: EtcdPut, over revision: Int64) -> EtcdOperation { putIf([.modifiedAt(put.key, revision)], put) }

    /// Puts over what begins later than `latest`, which was issued while a clock was wrong; over other things by their own rule.
    private static func put(_ put: EtcdPut, overBeginningsAfter latest: UInt64?, else ifNewer: EtcdOperation) -> EtcdOperation {
        guard let latest, latest < .max else { return ifNewer }
        return .transaction(
            EtcdTransaction(
                compare: [.greater(put.key, than: ClusterValue.beginning(latest + 1))], success: [.put(put)], failure: [ifNewer]))
    }

    private static func putIf(_ compare: [EtcdCompare], _ put: EtcdPut) -> EtcdOperation {
        let ifAbsent = EtcdTransaction(
            compare: [.absent(put.key)], success: [.put(put)], failure: [.range(EtcdRange(key: put.key))])
        return .transaction(EtcdTransaction(compare: compare, success: [.put(put)], failure: [.transaction(ifAbsent)]))
    }

    enum PutResult {
        case done
        case refused(EtcdKeyValue?)
    }

    /// - Parameter isOver: whether it was put by `put(_:overBeginningsAfter:else:)` with a time, one level further out.
    static func result(of response: EtcdResponse, isOver: Bool = false) -> PutResult {
        if response.succeeded { return .done }
        if isOver { return response.responses.first.map { result(of: $0) } ?? .done }
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
        var again: [ChangeQueue.Waiting] = []
        for waiting in batch {
            var outcome = StoreOutcome.Result.durable
            var overRevision: Int64?
            if let mapping = waiting.change.mapping {
                if let answer = results.popFirst(), case .refused(let pair) = Self.result(of: answer, isOver: waiting.change.latest != nil) {
                    let current = pair.flatMap { ClusterValue.mapping($0.value) }
                    // Itself, if it is asked again after its answer was lost.
                    if let current, current.certified != mapping.certified {
                        if mapping.certified.version > current.certified.version {
                            overRevision = pair?.modRevision
                        } else {
                            outcome = .outrun(by: current)
                        }
                    } else if current == nil {
                        outcome = .failed(
                            "\(pair.map { "\($0)" } ?? "etcd's answer") is no mapping of \(mapping.record.prefix); are all imsd of the cluster of one version?"
                        )
                    }
                }
            }
            if let certificate = waiting.change.issued {
                if let answer = results.popFirst(), case .refused(let pair) = Self.result(of: answer, isOver: waiting.change.latest != nil),
                    outcome == .durable,
                    pair.flatMap({ ClusterValue.certificate($0.value) }) != certificate
                {
                    outcome = .failed("another server of this IMS has just issued a newer certificate of \(certificate.prefix)")
                }
            }
            if !waiting.change.rows.isEmpty, let answer = results.popFirst(), let found = conflict(waiting.change, answer) {
                conflicts.add(StoreOutcome(waiting.ticket, .conflict(found.held)), at: found.revision, until: now.monotonic + Self.changeTimeMax)
                continue
            }
            if let overRevision, outcome == .durable {
                // Should somebody else be quicker, it is compared anew; its time ends with that of other changes.
                var next = waiting
                next.overRevision = overRevision
                again.append(next)
                continue
            }
            // Known before the watch tells it: who is then handed a subscriber by an earlier event pushes it.
            if outcome == .durable, let mapping = waiting.change.mapping {
                living.changed(mapping.record.prefix, at: response.revision)
            }
            outcomes.append(StoreOutcome(waiting.ticket, outcome))
        }
        changes.putBack(again)
        if !outcomes.isEmpty { actions.append(.deliver(.committed(outcomes))) }
        tellConflicts(now)
    }

    /// What the watch brings is with the core, unless it is held while in doubt.
    mutating func tellConflicts(_ now: Now) {
        let outcomes = conflicts.take(upTo: doubt.isInDoubt ? nil : feed.followedRevision, now.monotonic)
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
            heartbeat.hurry(now.monotonic + Self.unavailablePause)
        case .compacted, .noSpace, .refused:
            if error.kind == .noSpace { declareUnavailable(error.description) }
            fail(changes.answered(call), error.description)
        }
    }

    mutating func failOverdueChanges(_ now: Now) {
        let isAnswering = availability.isAnswering(now.monotonic)
        let time = isAnswering ? Self.busyChangeTimeMax : Self.changeTimeMax
        fail(changes.takeOverdue(since: now.monotonic + (.zero - time)), isAnswering ? "etcd is too slow" : availability.trouble)
    }

    private mutating func fail(_ changes: [ChangeQueue.Waiting], _ reason: String) {
        guard !changes.isEmpty else { return }
        actions.append(.deliver(.committed(changes.map { StoreOutcome($0.ticket, .failed(reason)) })))
    }
}
