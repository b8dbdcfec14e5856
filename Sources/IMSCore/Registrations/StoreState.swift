import MATSignal

/// What this server knows of its store.
///
/// ```
///            loadEnded                    unavailable(reason)
///  loading ────────────► all is known   ◄───────────────────► only read      (either may come first)
/// ```
/// While it loads, what is not found may yet come: the answer is "try later", never "not found". Updates wait for the end, since
/// versions could not be compared with what is not known. Without a store that writes, updates are refused and queries answered.
package struct StoreState: Sendable {
    private(set) var isLoading = false
    /// Whether something durable is not held, for want of memory.
    private(set) var isPartlyHeld = false
    /// Why no change can be made durable at present; for people who run the server.
    private(set) var unavailable: String?
    /// Changes that were not stored since the last log line that says so.
    private var failuresUnlogged: UInt64 = 0
    private var failureLoggedAt: MonotonicTime?

    /// Between two log lines about changes that were not stored.
    static let failureLogInterval: Duration = .seconds(10)

    /// What LIFETIME says while it loads, and while it can't write; seconds.
    package static let loadingSeconds: UInt32 = 1
    package static let unavailableSeconds: UInt32 = 5
    package static let loadingTextStatic: StaticString = "the server has just started and still reads its store"
    static var loadingText: String { loadingTextStatic.description }
    package static let partTextStatic: StaticString = "a part of what is registered can't be read at present"

    /// Whether what is not known may be registered all the same: the answer is "try later".
    var isIncomplete: Bool { isLoading || isPartlyHeld }

    /// Whether what is not known may stay so for a while: in a damaged store it may stand where nothing can be read.
    var isUnknownForLong: Bool { unavailable != nil || isPartlyHeld }

    /// What is said of an address that is not known while `isIncomplete`.
    var unknown: (text: String, seconds: UInt32) {
        isUnknownForLong ? (Self.partTextStatic.description, Self.unavailableSeconds) : (Self.loadingText, Self.loadingSeconds)
    }

    /// What nodes are told of a store that takes no change. Why is for the log: it may hold paths, addresses and a library's words, which are
    /// nobody's business.
    static let unavailableText = "the server's store takes no change at present"
    static let notStoredText = "the record could not be stored; send it again"
    static let notHeldText = "the server has no memory for the record at present; send it again"
    static let noMemoryText = "the server has no memory for more at present"

    /// Why nothing can be written now, in words for nodes, and when to try again.
    var refusal: (reason: String, seconds: UInt32)? {
        if unavailable != nil { return (Self.unavailableText, Self.unavailableSeconds) }
        return isLoading ? (Self.loadingText, Self.loadingSeconds) : nil
    }

    /// The same in words for people who run the server.
    var refusalForOperators: String? { unavailable.map { "the store takes no change: \($0)" } ?? refusal?.reason }

    // MARK: Events; each returns what is to be logged, if anything

    /// The store will tell what it holds by `StoreEvent.loaded`.
    mutating func loadBegins() { isLoading = true }

    /// - Returns: whether it was being read.
    mutating func loadEnded() -> Bool {
        defer { isLoading = false }
        return isLoading
    }

    /// Mappings that are durable and not held, for want of memory.
    mutating func unheld(_ count: Int) { isPartlyHeld = count > 0 }

    mutating func becameUnavailable(_ reason: String) -> String? {
        defer { unavailable = reason }
        guard unavailable != reason else { return nil }
        return "updates are refused and queries answered on, because the store takes no change: \(reason)"
    }

    mutating func becameAvailable() -> String? {
        guard unavailable != nil else { return nil }
        unavailable = nil
        failureLoggedAt = nil
        defer { failuresUnlogged = 0 }
        let missing = failuresUnlogged > 0 ? "; \(failuresUnlogged) more changes were not stored meanwhile" : ""
        return "the store takes changes again; updates are accepted\(missing)"
    }

    /// A change was not stored. Very many fail at once when a store goes away: one line says that it began, others how many there were.
    mutating func failed(_ change: String, _ reason: String, _ now: Now) -> String? {
        if let last = failureLoggedAt, last + Self.failureLogInterval > now.monotonic {
            failuresUnlogged += 1
            return nil
        }
        failureLoggedAt = now.monotonic
        defer { failuresUnlogged = 0 }
        let others = failuresUnlogged > 0 ? " (and \(failuresUnlogged) more since the last such line)" : ""
        return "the store could not take a change\(change)\(others): \(reason)"
    }
}
