/// Type 10: what became of a MA Notify. Its cookie is fresh: the sender may have had none.
public struct MANotifyAck: Hashable, Sendable {
    public var code: ResponseCode
    public var cookie: Cookie
    /// Absent only with codes that need only COOKIE.
    public var hoa: HomeAddress?
    /// With `stale`: the newer record.
    public var current: SignedMapping?
    /// With `tryLater`: seconds.
    public var lifetime: UInt32?
    public var text: String?

    public init(code: ResponseCode, cookie: Cookie, hoa: HomeAddress?, current: SignedMapping? = nil, lifetime: UInt32? = nil, text: String? = nil) {
        self.code = code
        self.cookie = cookie
        self.hoa = hoa
        self.current = current
        self.lifetime = lifetime
        self.text = text
    }

    init?(_ code: ResponseCode, _ options: SignalOptions) {
        guard let cookie = options.cookie else { return nil }
        self.init(code: code, cookie: cookie, hoa: options.hoa, current: options.mapping, lifetime: options.lifetime, text: options.text)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.hoa = hoa
        options.mapping = current
        options.lifetime = lifetime
        options.text = text
        return options
    }
}
