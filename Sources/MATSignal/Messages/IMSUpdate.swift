/// Type 1, node -> own IMS: "this is where I am now".
public struct IMSUpdate: Hashable, Sendable {
    public var cookie: Cookie
    public var record: EnclosedRecord
    /// One for each locator that is not the datagram's source.
    public var proofs: [LocatorProof]

    public init(cookie: Cookie, record: EnclosedRecord, proofs: [LocatorProof] = []) {
        self.cookie = cookie
        self.record = record
        self.proofs = proofs
    }

    init?(_ options: SignalOptions) {
        guard let cookie = options.cookie, let record = EnclosedRecord(options) else { return nil }
        self.init(cookie: cookie, record: record, proofs: options.locatorProofs)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        record.add(to: &options)
        options.locatorProofs = proofs
        return options
    }
}
