/// Calls to etcd that are not answered yet, and what each was made for.
struct PendingCalls: Sendable {
    enum Purpose: Equatable, Sendable {
        case authenticate
        case open
        case page
        case beat(UInt64)
        case changes
        case secret
        case lease
        case news
        case depose

        /// Whether nothing works without it, so that a refusal means to try another member.
        var isVital: Bool {
            switch self {
            case .authenticate, .open, .page, .beat: true
            case .changes, .secret, .lease, .news, .depose: false
            }
        }
    }

    private var purposes: [UInt64: Purpose] = [:]
    private var last: UInt64 = 0

    var isEmpty: Bool { purposes.isEmpty }

    /// - Returns: the call's number.
    mutating func begin(_ purpose: Purpose) -> UInt64 {
        last &+= 1
        purposes[last] = purpose
        return last
    }

    /// - Returns: `nil` for a call that nobody waits for.
    mutating func ended(_ call: UInt64) -> Purpose? { purposes.removeValue(forKey: call) }

    /// No answer comes any more.
    ///
    /// - Returns: the calls that carried changes, the newest first.
    mutating func linkLost() -> [UInt64] {
        defer { purposes = [:] }
        return purposes.filter { $0.value == .changes }.keys.sorted(by: >)
    }
}
