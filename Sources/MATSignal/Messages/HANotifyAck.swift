/// Type 6, IMS_CN -> MN: IMS_CN holds the mapping.
public struct HANotifyAck: Hashable, Sendable {
    public var code: ResponseCode
    public var cookie: Cookie
    /// Absent only with codes that need only COOKIE.
    public var hoa: HomeAddress?
    /// With `tryLater`: seconds.
    public var lifetime: UInt32?
    public var text: String?

    public init(code: ResponseCode, cookie: Cookie, hoa: HomeAddress?, lifetime: UInt32? = nil, text: String? = nil) {
        self.code = code
        self.cookie = cookie
        self.hoa = hoa
        self.lifetime = lifetime
        self.text = text
    }

    init?(_ code: ResponseCode, _ options: SignalOptions) {
        guard let cookie = options.cookie else { return nil }
        self.init(code: code, cookie: cookie, hoa: options.hoa, lifetime: options.lifetime, text: options.text)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.hoa = hoa
        options.lifetime = lifetime
        options.text = text
        return options
    }
}
