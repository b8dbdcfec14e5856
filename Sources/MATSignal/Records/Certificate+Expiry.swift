// When people should hear that a certificate is about to end. Renewal comes with registration, in the last third of a certificate's
// time; one that is still not renewed at these times has nobody who renews it, and its node will drop out at the end.

extension Certificate {
    /// How long before its end people are told.
    public static let warningAhead: Duration = .seconds(30 * 86_400)

    /// The Unix time in ms from which on people are told: 30 days before the end, or in the last quarter of a shorter life.
    public var warnsFrom: UInt64 { Self.warnsFrom(notBefore: notBefore, notAfter: notAfter) }

    /// The same of a certificate that is not at hand as a value; Unix times in ms.
    public static func warnsFrom(notBefore: UInt64, notAfter: UInt64) -> UInt64 {
        let life = notAfter > notBefore ? notAfter - notBefore : 0
        let ahead = min(UInt64(warningAhead.components.seconds) * 1000, life / 4)
        return notAfter - min(ahead, notAfter)
    }

    /// Whether it has ended, or will soon with nobody having renewed it.
    public func endsSoon(_ now: Now) -> Bool { now.wallMilliseconds >= warnsFrom }

    public func hasEnded(_ now: Now) -> Bool { now.wallMilliseconds > notAfter }
}
