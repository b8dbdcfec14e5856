/// Type 2, IMS -> node. `ok` means that the record is durable.
public struct IMSUpdateReply: Hashable, Sendable {
    public var code: ResponseCode
    public var cookie: Cookie
    /// The source that the server saw.
    public var observed: Endpoint?
    /// With `stale`: the record that the server holds.
    public var current: SignedMapping?
    /// A renewed certificate.
    public var certificate: Certificate?
    /// With `tryLater`: seconds.
    public var lifetime: UInt32?
    public var text: String?

    public init(
        code: ResponseCode, cookie: Cookie, observed: Endpoint? = nil, current: SignedMapping? = nil, certificate: Certificate? = nil,
        lifetime: UInt32? = nil, text: String? = nil
    ) {
        self.code = code
        self.cookie = cookie
        self.observed = observed
        self.current = current
        self.certificate = certificate
        self.lifetime = lifetime
        self.text = text
    }

    init?(_ code: ResponseCode, _ options: SignalOptions) {
        guard let cookie = options.cookie else { return nil }
        self.init(
            code: code, cookie: cookie, observed: options.observed, current: options.mapping, certificate: options.certificate,
            lifetime: options.lifetime, text: options.text)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.observed = observed
        options.mapping = current
        options.certificate = certificate
        options.lifetime = lifetime
        options.text = text
        return options
    }
}
