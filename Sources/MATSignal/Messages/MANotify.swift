/// Type 9: a signed mapping, from anyone who holds it, to a node or IMS that may need it.
public struct MANotify: Hashable, Sendable {
    public var cookie: Cookie
    public var record: EnclosedRecord

    public init(cookie: Cookie, record: EnclosedRecord) {
        self.cookie = cookie
        self.record = record
    }

    init(_ options: SignalOptions) throws(SignalError) {
        guard let cookie = options.cookie else { throw .missing(.cookie, in: .maNotify) }
        guard let record = try EnclosedRecord(options, in: .maNotify) else { throw .missing(.mapping, in: .maNotify) }
        self.init(cookie: cookie, record: record)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        record.add(to: &options)
        return options
    }
}
