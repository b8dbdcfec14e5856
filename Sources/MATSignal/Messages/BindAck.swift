/// Type 12, IMS or relay -> node (section 11.3): what it saw the node come from and, if a binding was asked for, what it granted.
public struct BindAck: Hashable, Sendable {
    /// A binding that the server holds from now on.
    public struct Grant: Hashable, Sendable {
        public var hoa: HomeAddress
        /// Seconds; 0 if the binding has ended.
        public var lifetime: UInt32
        public var role: ServerRole

        public init(_ hoa: HomeAddress, lifetime: UInt32, role: ServerRole) {
            self.hoa = hoa
            self.lifetime = lifetime
            self.role = role
        }
    }

    public var code: ResponseCode
    public var cookie: Cookie
    /// The source that the server saw. Absent only with codes that need only COOKIE, and "cookie required" has it too.
    public var observed: Endpoint?
    /// With code ok, unless the node only asked.
    public var granted: Grant?
    /// With `tryLater`: seconds.
    public var lifetime: UInt32?
    public var text: String?

    public init(
        code: ResponseCode, cookie: Cookie, observed: Endpoint?, granted: Grant? = nil, lifetime: UInt32? = nil, text: String? = nil
    ) {
        self.code = code
        self.cookie = cookie
        self.observed = observed
        self.granted = granted
        self.lifetime = lifetime
        self.text = text
    }

    init?(_ code: ResponseCode, _ options: SignalOptions) {
        guard let cookie = options.cookie else { return nil }
        self.init(code: code, cookie: cookie, observed: options.observedMasked, text: options.text)
        if code == .ok, let hoa = options.hoa, let lifetime = options.lifetime, let role = options.role {
            granted = Grant(hoa, lifetime: lifetime, role: role)
        } else {
            lifetime = options.lifetime
        }
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.observedMasked = observed
        options.hoa = granted?.hoa
        options.lifetime = granted?.lifetime ?? lifetime
        options.role = granted?.role
        options.text = text
        return options
    }
}
