import MATCore
import MATSignal

/// How many HoAs of other servers are being found out about. Each costs DNS questions and a query to a server of whoever owns the HoA, and
/// takes seconds where those keep silent. So no source has more than a few going, and all together begin so many a second.
struct Inquiries: Sendable {
    /// By source, HoAs that strangers there make us find out about at the moment.
    private var counts: [IPPrefix: Int] = [:]
    private var rate: RateLimit

    init(perSecond: Int) { rate = RateLimit(perSecond: perSecond) }

    mutating func reconfigure(perSecond: Int) { rate.reconfigure(perSecond: perSecond) }

    var isEmpty: Bool { counts.isEmpty }

    /// - Returns: why not now; `nil` if it has begun.
    mutating func begin(_ source: IPPrefix, _ limits: IMSLimits, _ now: MonotonicTime) -> String? {
        guard counts[source] ?? 0 < limits.inquiriesPerSourceMax else {
            return "\(limits.inquiriesPerSourceMax) HoAs announced by this source are being found out about"
        }
        guard rate.take(at: now) else {
            return "more than \(limits.inquiriesPerSecond) HoAs of other servers announced in a second"
        }
        counts[source, default: 0] += 1
        return nil
    }

    mutating func end(_ source: IPPrefix) {
        guard let count = counts[source] else { return }
        counts[source] = count > 1 ? count - 1 : nil
    }
}
