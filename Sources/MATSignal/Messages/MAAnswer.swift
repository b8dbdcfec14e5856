/// Type 4: the answer to MA Query. From an IMS, `ok` carries the mapping; from a node, `ok` says "I am, here".
public struct MAAnswer: Hashable, Sendable {
    public var code: ResponseCode
    public var cookie: Cookie
    /// The HoA asked for; absent only with codes that need only COOKIE.
    public var hoa: HomeAddress?
    public var mapping: SignedMapping?
    /// Absent if the query's CERT-ID matched.
    public var certificate: Certificate?
    /// Seconds of subscription granted.
    public var subscribe: UInt32?
    /// With `notFound`: seconds to remember that. With `tryLater`: when.
    public var lifetime: UInt32?
    public var text: String?

    public init(
        code: ResponseCode, cookie: Cookie, hoa: HomeAddress?, mapping: SignedMapping? = nil, certificate: Certificate? = nil,
        subscribe: UInt32? = nil, lifetime: UInt32? = nil, text: String? = nil
    ) {
        self.code = code
        self.cookie = cookie
        self.hoa = hoa
        self.mapping = mapping
        self.certificate = certificate
        self.subscribe = subscribe
        self.lifetime = lifetime
        self.text = text
    }

    init?(_ code: ResponseCode, _ options: SignalOptions) {
        guard let cookie = options.cookie else { return nil }
        self.init(
            code: code, cookie: cookie, hoa: options.hoa, mapping: options.mapping, certificate: options.certificate,
            subscribe: options.subscribe, lifetime: options.lifetime, text: options.text)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.hoa = hoa
        options.mapping = mapping
        options.certificate = certificate
        options.subscribe = subscribe
        options.lifetime = lifetime
        options.text = text
        return options
    }
}
