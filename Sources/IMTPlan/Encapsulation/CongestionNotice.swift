/// How ECN marks get from one header to the other: RFC 6040, normal mode. DSCP goes out with the mark, and what the network made of it stays
/// outside.
///
///     inner  \  outer   not-ECT    ECT(0)     ECT(1)     CE
///     not-ECT           not-ECT    not-ECT    not-ECT    drop
///     ECT(0)            ECT(0)     ECT(0)     ECT(1)     CE
///     ECT(1)            ECT(1)     ECT(1)     ECT(1)     CE
///     CE                CE         CE         CE         CE
package enum CongestionNotice {
    private static let notCapable: UInt8 = 0, capable1: UInt8 = 1, capable0: UInt8 = 2, experienced: UInt8 = 3

    /// The outer header's traffic class.
    package static func outer(of inner: UInt8) -> UInt8 { inner }

    /// The inner header's traffic class after the outer one is gone; `nil` if the packet has to be dropped, because the network reports
    /// congestion to a sender that knows nothing of the mark.
    package static func inner(_ inner: UInt8, within outer: UInt8) -> UInt8? {
        let mark = inner & 3
        switch outer & 3 {
        case experienced: return mark == notCapable ? nil : inner | experienced
        case capable1: return mark == capable0 ? inner & ~3 | capable1 : inner
        default: return inner
        }
    }
}
