/// Type 7, CN -> own IMS: "whose MoA is this?".
public struct HAQuery: Hashable, Sendable {
    public var cookie: Cookie
    public var moa: MobileAddress

    public init(cookie: Cookie, moa: MobileAddress) {
        self.cookie = cookie
        self.moa = moa
    }

    init?(_ options: SignalOptions) {
        guard let cookie = options.cookie, let moa = options.moa else { return nil }
        self.init(cookie: cookie, moa: moa)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.moa = moa
        return options
    }
}
