/// Type 16, IMS -> node (section 12): the home address that it has from now on, or why it has none.
public struct JoinReply: Hashable, Sendable {
    /// What was given.
    public struct Grant: Hashable, Sendable {
        public var hoa: HomeAddress
        public var certificate: Certificate
        /// Seconds; 0 if it was given back.
        public var lifetime: UInt32

        public init(_ hoa: HomeAddress, _ certificate: Certificate, lifetime: UInt32) {
            self.hoa = hoa
            self.certificate = certificate
            self.lifetime = lifetime
        }
    }

    public var code: ResponseCode
    public var cookie: Cookie
    /// With code ok.
    public var granted: Grant?
    /// With `tryLater`: seconds.
    public var lifetime: UInt32?
    public var text: String?

    public init(code: ResponseCode, cookie: Cookie, granted: Grant? = nil, lifetime: UInt32? = nil, text: String? = nil) {
        self.code = code
        self.cookie = cookie
        self.granted = granted
        self.lifetime = lifetime
        self.text = text
    }

    init?(_ code: ResponseCode, _ options: SignalOptions) {
        guard let cookie = options.cookie else { return nil }
        self.init(code: code, cookie: cookie, text: options.text)
        if code == .ok, let hoa = options.hoa, let certificate = options.certificate, let lifetime = options.lifetime {
            granted = Grant(hoa, certificate, lifetime: lifetime)
        } else {
            lifetime = options.lifetime
        }
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.hoa = granted?.hoa
        options.certificate = granted?.certificate
        options.lifetime = granted?.lifetime ?? lifetime
        options.text = text
        return options
    }
}
