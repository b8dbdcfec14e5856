import IMTPlan
import MATCore
import MATSignal

/// Whether the present network has a NAT64, as its routers (RFC 8781) or its own resolvers (RFC 7050) say. A router's word goes before.
///
/// ```
///   idle ── some link has IPv6 only; the links or the resolvers are others ──► asking ──► known: a prefix, or none
///     ▲                                                                          ▲            │
///     └── every link has IPv4 ◄───────────────────────────────────────────────── │ ───────────┤
///                                                                                └── 1, 2, 4 ... 60 s while there is none
/// ```
struct NAT64Search: Sendable {
    private enum State: Sendable {
        case idle
        case asking
        case absent(until: MonotonicTime)
        case known
    }

    static let pauseMax: Duration = .seconds(60)

    private let use: NAT64Use
    private var state = State.idle
    private var failures = 0

    init(_ use: NAT64Use) { self.use = use }

    /// When `takeDue` is to be told.
    var due: MonotonicTime? {
        let search: MonotonicTime? = if case .absent(let until) = state { until } else { nil }
        return search.earlier(advertised?.until)
    }

    /// Some link has IPv6 only.
    private var isNeeded = false
    /// By a router, and when that ends.
    private var advertised: (prefix: NAT64Prefix, interfaceIndex: UInt32, until: MonotonicTime)?

    /// The links or the resolvers are others.
    ///
    /// - Parameter links: that have addresses. What a router said on another counts no more.
    /// - Returns: whether the resolvers are to be asked.
    mutating func begin(isNeeded: Bool, links: Set<UInt32> = []) -> Bool {
        self.isNeeded = isNeeded
        if let link = advertised?.interfaceIndex, !links.contains(link) { advertised = nil }
        failures = 0
        guard case .auto = use, isNeeded else {
            state = .idle
            return false
        }
        state = .asking
        return true
    }

    /// Time has passed.
    ///
    /// - Returns: whether the resolvers are to be asked.
    mutating func takeDue(_ now: MonotonicTime) -> Bool {
        if let until = advertised?.until, until <= now { advertised = nil }
        guard case .absent(let until) = state, until <= now else { return false }
        state = .asking
        return true
    }

    /// A router of a link said it.
    mutating func advertised(_ translator: AdvertisedTranslator, on interfaceIndex: UInt32, _ now: MonotonicTime) {
        guard let prefix = NAT64Prefix(translator.prefix) else { return }
        if translator.lifetime > 0 {
            advertised = (prefix, interfaceIndex, now + .seconds(Int64(translator.lifetime)))
        } else if advertised?.prefix == prefix, advertised?.interfaceIndex == interfaceIndex {
            advertised = nil
        }
    }

    /// The resolvers answered, or did not.
    ///
    /// - Parameter before: the prefix that held so far. It goes on as long as nobody says that there is none.
    /// - Returns: the prefix that holds now.
    mutating func answered(_ answer: NAT64Answer, before: NAT64Prefix?, _ now: MonotonicTime) -> NAT64Prefix? {
        // What was asked in an earlier network came late.
        guard case .asking = state else { return present(before) }
        if case .prefix(let prefix) = answer {
            state = .known
            return present(prefix)
        }
        state = .absent(until: now + min(Self.pauseMax, .seconds(1 << min(failures, 6))))
        failures += 1
        return present(answer == .silence ? before : nil)
    }

    /// The prefix that holds, with what the resolvers said last.
    func present(_ found: NAT64Prefix?) -> NAT64Prefix? {
        switch use {
        case .auto: isNeeded ? advertised?.prefix ?? found : nil
        case .fixed(let prefix): isNeeded ? prefix : nil
        case .never: nil
        }
    }
}

/// What a network's resolvers say of a NAT64.
package enum NAT64Answer: Hashable, Sendable {
    case prefix(NAT64Prefix)
    case none
    /// None of them answered.
    case silence
}

/// What the configuration says of NAT64s.
package enum NAT64Use: Hashable, Sendable {
    /// The network's resolvers are asked.
    case auto
    case fixed(NAT64Prefix)
    case never
}
