/// Type 8, IMS -> CN: the mapping that lists the MoA.
public struct HAAnswer: Hashable, Sendable {
    public var code: ResponseCode
    public var cookie: Cookie
    /// Absent only with codes that need only COOKIE.
    public var moa: MobileAddress?
    public var mapping: SignedMapping?
    public var certificate: Certificate?
    /// With `notFound`: seconds to remember that, at most 5. With `tryLater`: when.
    public var lifetime: UInt32?
    public var text: String?

    public init(
        code: ResponseCode, cookie: Cookie, moa: MobileAddress?, mapping: SignedMapping? = nil, certificate: Certificate? = nil,
        lifetime: UInt32? = nil, text: String? = nil
    ) {
        self.code = code
        self.cookie = cookie
        self.moa = moa
        self.mapping = mapping
        self.certificate = certificate
        self.lifetime = lifetime
        self.text = text
    }

    init?(_ code: ResponseCode, _ options: SignalOptions) {
        guard let cookie = options.cookie else { return nil }
        self.init(
            code: code, cookie: cookie, moa: options.moa, mapping: options.mapping, certificate: options.certificate,
            lifetime: options.lifetime, text: options.text)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.moa = moa
        options.mapping = mapping
        options.certificate = certificate
        options.lifetime = lifetime
        options.text = text
        return options
    }
}
