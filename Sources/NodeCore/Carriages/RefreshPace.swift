import MATSignal

/// How often bindings from one MoA are refreshed, so that the translator before it keeps what they have opened: found out by what it forgets.
///
/// ```
///   25 s ── a refresh is seen at another port: too long ──► half of it, or what was long enough ◄── too long again ──┐
///                                                             │ two intervals, and all is seen where it was          │
///                                                             └──► the middle between that and what was too long ────┘ until they are 2 s apart
///   that for a day ──► 25 s: what looked forgetful may have been a translator that was restarted
/// ```
/// Translators keep what nobody uses for 30 s and longer, as a rule (RFC 4787, REQ-5 wants two minutes); this is for the others. More than 25 s is not
/// tried: one that gives the same port again would not show that it had forgotten it, and what comes meanwhile would be lost.
struct RefreshPace: Sendable {
    static let longest: Duration = .seconds(25)
    static let shortest: Duration = .seconds(6)
    private static let precision: Duration = .seconds(2)
    /// How long what was found out is believed.
    private static let believed: Duration = .seconds(86_400)

    private(set) var interval = longest
    private var tooLong: Duration?
    private var longEnough: Duration?
    private var since: MonotonicTime

    init(_ now: MonotonicTime) { since = now }

    /// A refresh was seen at another port than the one before.
    ///
    /// - Parameter idle: how long before. Much less than is tried now is no sign of what a translator keeps: it started anew. Much more is none of this
    ///   interval: that binding was last refreshed when a longer one was tried, or by a server that was silent.
    mutating func lost(after idle: Duration, _ now: MonotonicTime) {
        // Of several servers each says so.
        guard idle >= interval / 2, idle <= interval * 5 / 4, now - since >= Self.shortest / 2 else { return }
        tooLong = interval
        if let kept = longEnough, kept < interval {
            interval = kept
        } else {
            (longEnough, interval) = (nil, max(Self.shortest, interval / 2))
        }
        since = now
    }

    /// It was seen where it was.
    mutating func kept(_ now: MonotonicTime) {
        guard let tooLong, now - since >= interval * 2 else { return }
        longEnough = interval
        if tooLong - interval > Self.precision {
            interval = interval + (tooLong - interval) / 2
        } else {
            guard now - since >= Self.believed else { return }
            (interval, self.tooLong) = (Self.longest, nil)
        }
        since = now
    }
}
