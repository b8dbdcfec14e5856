import MATCore
import MATSignal

// Whether the own IMS still knows us. An IMS that lost its store, or got an old copy of it back, knows nothing of the nodes that registered
// before, and says so to nobody: a node at home would be missing until it registers again, up to half an hour later, and its peers' new
// connections would be plain without a word.
//
//   every 2 minutes ─────────────────────────────┐
//   a peer or an IMS says something that fits ───┴──► MA Query for the own HoA ──► nothing, or an older record ──► register again
//
// A query of 40 to 84 octets that workers answer from memory: 10^6 nodes cost their IMS some 8,000 of them a second. The times are spread
// at random, so a store that is lost comes back at that pace too, about what one server takes in.

extension NodeCore {
    /// Between two checks that something gave a reason for.
    static let selfCheckPauseMin: Duration = .seconds(5)

    /// The next check: in the configured time, less or more up to a quarter of it.
    mutating func selfCheckLater(_ hoa: HomeAddress, _ now: Now) {
        let interval = configuration.selfCheckInterval.nanosecondsSaturated
        let delay = Duration.nanoseconds(interval / 4 * 3 + Int64.random(in: 0...max(1, interval / 2), using: &random))
        deadlines.set(.selfCheck(hoa), at: now.monotonic + delay)
    }

    mutating func selfCheckDue(_ hoa: HomeAddress, _ now: Now) {
        selfCheckLater(hoa, now)
        checkSelf(hoa, now)
    }

    /// An answer was as if our IMS did not know us: it is asked at once.
    mutating func suspectLoss(of hoa: HomeAddress, _ now: Now) {
        guard homes[hoa]?.selfCheckedAt.map({ now.monotonic - $0 >= Self.selfCheckPauseMin }) ?? true else { return }
        checkSelf(hoa, now)
    }

    private mutating func checkSelf(_ hoa: HomeAddress, _ now: Now) {
        // An update under way, or to come, will tell by itself.
        guard let home = homes[hoa], home.phase == .registered, !isUnderWay(.checkSelf(hoa)), !isUnderWay(.register(hoa)),
            let servers = home.servers, let source = desiredLocators(of: hoa).first
        else { return }
        let targets = servers.endpoints.filter { $0.address.isIPv4 == source.isIPv4 }
        guard !targets.isEmpty else { return }
        homes[hoa]?.selfCheckedAt = now.monotonic
        start(.checkSelf(hoa), .maQuery, to: targets, source: source.address, triesMax: Retransmission.failoverTry, now)
    }

    mutating func selfChecked(_ hoa: HomeAddress, _ answer: MAAnswer, _ now: Now) {
        guard let home = homes[hoa], home.phase == .registered, let own = home.mapping else { return }
        switch answer.code {
        case .notFound: break
        case .ok:
            guard let held = answer.mapping, held != own.mapping, held.record.sequence < own.record.sequence else { return }
        default: return
        }
        counters.recordsLost += 1
        log(
            .warning,
            "\(hoa): its IMS has \(answer.code == .notFound ? "no" : "only an older") record of it, though it acked one; registering again"
        )
        // What it does not know it has to be given whole.
        homes[hoa]?.serverHasCertificate = false
        register(hoa, now)
        // The other family's record is likely to have been in the same store.
        for other in homes.keys.sorted() where other != hoa { suspectLoss(of: other, now) }
    }
}
