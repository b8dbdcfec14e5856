/// Type 3: "where is this HoA?" to its IMS; to a node, the locator check: "are you this HoA, here?".
public struct MAQuery: Hashable, Sendable {
    public var cookie: Cookie
    public var hoa: HomeAddress
    /// A certificate that the requester has and need not be sent again.
    public var certID: CertificateID?
    /// Seconds for which the requester wants to be told of changes.
    public var subscribe: UInt32?
    /// Octets of padding, so that the answer fits into the request's size (section 6).
    public var padding: Int?

    public init(cookie: Cookie, hoa: HomeAddress, certID: CertificateID? = nil, subscribe: UInt32? = nil, padding: Int? = nil) {
        self.cookie = cookie
        self.hoa = hoa
        self.certID = certID
        self.subscribe = subscribe
        self.padding = padding
    }

    init?(_ options: SignalOptions) {
        guard let cookie = options.cookie, let hoa = options.hoa else { return nil }
        self.init(cookie: cookie, hoa: hoa, certID: options.certID, subscribe: options.subscribe, padding: options.padding)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.hoa = hoa
        options.certID = certID
        options.subscribe = subscribe
        options.padding = padding
        return options
    }
}
