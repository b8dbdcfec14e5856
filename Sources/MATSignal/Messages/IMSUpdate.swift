/// Type 1, node -> own IMS: "this is where I am now".
public struct IMSUpdate: Hashable, Sendable {
    public var cookie: Cookie
    public var record: EnclosedRecord
    /// One for each locator that is not the datagram's source.
    public var proofs: [LocatorProof]
    /// One for each endpoint that is not.
    public var endpointProofs: [EndpointProof]

    public init(cookie: Cookie, record: EnclosedRecord, proofs: [LocatorProof] = [], endpointProofs: [EndpointProof] = []) {
        self.cookie = cookie
        self.record = record
        self.proofs = proofs
        self.endpointProofs = endpointProofs
    }

    init?(_ options: SignalOptions) {
        guard let cookie = options.cookie, let record = EnclosedRecord(options) else { return nil }
        self.init(cookie: cookie, record: record, proofs: options.locatorProofs, endpointProofs: options.endpointProofs)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        record.add(to: &options)
        options.locatorProofs = proofs
        options.endpointProofs = endpointProofs
        return options
    }
}
