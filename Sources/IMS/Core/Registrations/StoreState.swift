import MATSignal
import MappingMemory

// What the store tells: what it holds, what other instances wrote, whether it can write.

/// What this server knows of its store.
///
/// ```
///            loadEnded                    unavailable(reason)
///  loading ────────────► all is known   ◄───────────────────► only read      (either may come first)
/// ```
/// While it loads, what is not found may yet come: the answer is "try later", never "not found". Updates wait for the end, since
/// versions could not be compared with what is not known. Without a store that writes, updates are refused and queries answered.
struct StoreState: Sendable {
    var isLoading = false
    /// Why no change can be made durable at present; for people who run the server.
    var unavailable: String?
    /// Changes that were not stored since the last log line that says so.
    private var failuresUnlogged: UInt64 = 0
    private var failureLoggedAt: MonotonicTime?

    /// Between two log lines about changes that were not stored.
    static let failureLogInterval: Duration = .seconds(10)

    /// What LIFETIME says while it loads, and while it can't write; seconds.
    static let loadingSeconds: UInt32 = 1
    static let unavailableSeconds: UInt32 = 5
    static let loadingTextStatic: StaticString = "the server has just started and still reads its store"
    static var loadingText: String { loadingTextStatic.description }

    /// What is said of an address that is not known while not all is: in a damaged store it may stand where nothing can be read.
    var unknown: (text: String, seconds: UInt32) {
        unavailable == nil
            ? (Self.loadingText, Self.loadingSeconds) : ("a part of what is registered can't be read at present", Self.unavailableSeconds)
    }

    /// What nodes are told of a store that takes no change. Why is for the log: it may hold paths, addresses and a library's words, which are
    /// nobody's business.
    static let unavailableText = "the server's store takes no change at present"
    static let notStoredText = "the record could not be stored; send it again"

    /// Why nothing can be written now, in words for nodes, and when to try again.
    var refusal: (reason: String, seconds: UInt32)? {
        if unavailable != nil { return (Self.unavailableText, Self.unavailableSeconds) }
        return isLoading ? (Self.loadingText, Self.loadingSeconds) : nil
    }

    /// The same in words for people who run the server.
    var refusalForOperators: String? { unavailable.map { "the store takes no change: \($0)" } ?? refusal?.reason }

    /// A change was not stored. Very many fail at once when a store goes away: one line says that it began, others how many there were.
    ///
    /// - Returns: the line to log now, if any.
    mutating func noteFailure(of change: String, _ reason: String, _ now: Now) -> String? {
        if let last = failureLoggedAt, last + Self.failureLogInterval > now.monotonic {
            failuresUnlogged += 1
            return nil
        }
        failureLoggedAt = now.monotonic
        defer { failuresUnlogged = 0 }
        let others = failuresUnlogged > 0 ? " (and \(failuresUnlogged) more since the last such line)" : ""
        return "the store could not take a change\(change)\(others): \(reason)"
    }

    /// - Returns: what is still to be said of changes that were not stored, when the store takes changes again.
    mutating func endFailures() -> String {
        failureLoggedAt = nil
        defer { failuresUnlogged = 0 }
        return failuresUnlogged > 0 ? "; \(failuresUnlogged) more changes were not stored meanwhile" : ""
    }
}

extension IMSCore {
    /// The store will tell what it holds by `StoreEvent.loaded`: until `loadEnded` what is not known is not "not found".
    public mutating func loadBegins() { store.isLoading = true }

    public var isLoading: Bool { store.isLoading }
    /// Why the store takes no change at present.
    public var storeUnavailable: String? { store.unavailable }

    /// The store told something.
    public mutating func store(_ event: StoreEvent, now: Now) -> [IMSAction] {
        switch event {
        case .loaded(let contents): load(contents, now)
        case .loadEnded:
            guard store.isLoading else { break }
            store.isLoading = false
            log(.notice, "all mappings are loaded: \(mappings.count)")
        case .changed(let changes):
            for change in changes { take(change, now) }
        case .secrets(let secrets):
            guard let newest = secrets.first else { break }
            cookies.use(newest.octets, previous: secrets.dropFirst().first?.octets)
        case .committed(let outcomes):
            for outcome in outcomes { finishWrite(outcome.ticket, outcome.result, now) }
        case .unavailable(let reason):
            if store.unavailable != reason {
                log(.error, "updates are refused and queries answered on, because the store takes no change: \(reason)")
            }
            store.unavailable = reason
        case .available:
            if store.unavailable != nil { log(.notice, "the store takes changes again; updates are accepted\(store.endFailures())") }
            store.unavailable = nil
        case .shared(let news): take(news, now)
        // The shell's business.
        case .caughtUp, .left: break
        case .failed(let text): log(.error, text)
        }
        return takeActions(now)
    }

    private mutating func load(_ contents: StoreContents, _ now: Now) {
        contents.mappings.forEach { packed in
            // At a start nobody is to be told of anything, so no value is made of it.
            if store.isLoading, let facts = packed.wellFormed {
                let held = mappings.version(of: facts.prefix)
                guard held.map({ $0 < facts.version }) ?? true else { return }
                if held == nil { countMapping(facts.prefix) }
                mappings.set(packed, expires: facts.expires)
                issued.used(facts.prefix, notBefore: facts.version.notBefore)
            } else if let mapping = packed.stored {
                take(mapping, now)
            }
        }
        for certificate in contents.issued { issued.note(certificate) }
        for name in contents.unreadable { log(.error, "the store holds something unreadable about \(name); it is not served") }
    }

    private mutating func take(_ change: StoreChange, _ now: Now) {
        if let certificate = change.issued { issued.note(certificate, latest: now.latestBelieved) }
        if let mapping = change.mapping { take(mapping, now) }
    }

    /// A mapping that is durable: held from now on and told to those who want to know, unless a newer one is held.
    mutating func take(_ mapping: StoredMapping, _ now: Now) {
        let latest = now.latestBelieved
        issued.note(mapping.certified.certificate, latest: latest)
        let held = mappings.version(of: mapping.record.prefix)
        // What begins too far ahead for anybody to believe it gives way to what the store has taken in its place.
        func givesWay(_ held: RecordVersion) -> Bool {
            held < mapping.certified.version || held.notBefore > latest && mapping.certified.version.notBefore <= latest
        }
        guard held.map(givesWay) ?? true else { return }
        if held == nil { countMapping(mapping.record.prefix) }
        if !store.isLoading { noteChange(to: mapping, now) }
        mappings.set(mapping)
        issued.used(mapping.record.prefix, notBefore: mapping.certified.certificate.notBefore)
        // At a start there is nobody to tell yet.
        guard !store.isLoading else { return }
        remembered.remove(mapping.record.prefix)
        pushToSubscribers(of: mapping, now)
        settleOwnNotifies(of: mapping, now)
    }
}
