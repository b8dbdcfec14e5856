/// Type 5, MN -> IMS_CN: "I, this HoA, am about to talk to that one; know where I am".
public struct HANotify: Hashable, Sendable {
    public var cookie: Cookie
    public var hoa: HomeAddress
    public var peerHoA: HomeAddress
    /// The notifier's own signed record, which saves IMS_CN a query before it can act.
    public var record: EnclosedRecord?
    /// The notifier's own word for where it is, if its source is not listed at the servers of its HoA (section 11.3).
    public var signature: Signature?

    public init(cookie: Cookie, hoa: HomeAddress, peerHoA: HomeAddress, record: EnclosedRecord? = nil, signature: Signature? = nil) {
        self.cookie = cookie
        self.hoa = hoa
        self.peerHoA = peerHoA
        self.record = record
        self.signature = signature
    }

    init?(_ options: SignalOptions) {
        guard let cookie = options.cookie, let hoa = options.hoa, let peerHoA = options.peerHoA else { return nil }
        self.init(cookie: cookie, hoa: hoa, peerHoA: peerHoA, record: EnclosedRecord(options), signature: options.pathSignature)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.hoa = hoa
        options.peerHoA = peerHoA
        record?.add(to: &options)
        options.pathSignature = signature
        return options
    }
}
