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
        case probe

        /// Whether nothing works without it, so that a refusal means to try another member.
        var isVital: Bool {
            switch self {
            case .authenticate, .open, .page, .beat: true
            case .changes, .secret, .lease, .news, .depose, .probe: false
            }
        }

        /// Whether the leader has a part in it, and it is asked again if that one dies.
        var isWrite: Bool {
            switch self {
            case .open, .beat, .changes, .lease, .news, .depose: true
            case .authenticate, .page, .secret, .probe: false
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

    /// Answers to writes are not waited for any more.
    ///
    /// - Returns: the writes, the newest first.
    mutating func forgetWrites() -> [(call: UInt64, purpose: Purpose)] {
        let writes = purposes.filter(\.value.isWrite).map { (call: $0.key, purpose: $0.value) }
        for write in writes { purposes[write.call] = nil }
        return writes.sorted { $0.call > $1.call }
    }

    /// No answer comes any more.
    ///
    /// - Returns: the calls that carried changes, the newest first.
    mutating func linkLost() -> [UInt64] {
        defer { purposes = [:] }
        return purposes.filter { $0.value == .changes }.keys.sorted(by: >)
    }
}
