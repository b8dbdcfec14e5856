import MATCore
import MATSignal

extension MobileAddress {
    /// The network that it is in, as far as addresses tell.
    var likelyNetwork: IPPrefix { IPPrefix(covering: address, length: family == .ipv4 ? 120 : 64) }
}

/// Networks that let in only what answers: a node that comes back to one need not find that out again, by packets that are lost in it.
///
/// ```
///   (nothing) ── left, and two checks had not come there ──► filtered ── an hour, or left, and a check had come ──► (nothing)
/// ```
/// The hour counts from when it was found out, and not from later visits that believed it: who opens the firewall is not disbelieved for ever.
struct FilteredNetworks: Sendable {
    static let lifetime: Duration = .seconds(3600)
    static let networksMax = 64

    private var until: [IPPrefix: MonotonicTime] = [:]

    func contains(_ moa: MobileAddress, _ now: MonotonicTime) -> Bool { until[moa.likelyNetwork].map { now < $0 } ?? false }

    /// This is what the checks of the own IMS have shown.
    mutating func learn(_ moa: MobileAddress, isFiltered: Bool, _ now: MonotonicTime) {
        until[moa.likelyNetwork] = isFiltered ? now + Self.lifetime : nil
        guard until.count > Self.networksMax, let oldest = until.min(by: { ($0.value, $0.key) < ($1.value, $1.key) }) else { return }
        until[oldest.key] = nil
    }
}
