/// Type 9: a signed mapping, from anyone who holds it, to a node or IMS that may need it.
public struct MANotify: Hashable, Sendable {
    public var cookie: Cookie
    public var record: EnclosedRecord

    public init(cookie: Cookie, record: EnclosedRecord) {
        self.cookie = cookie
        self.record = record
    }

    init?(_ options: SignalOptions) {
        guard let cookie = options.cookie, let record = EnclosedRecord(options) else { return nil }
        self.init(cookie: cookie, record: record)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        record.add(to: &options)
        return options
    }
}
