/// Type 14, node -> node (section 11.4): "I hear you", with the challenge signed unless it was asked in-path.
public struct PathAnswer: Hashable, Sendable {
    public var code: ResponseCode
    public var cookie: Cookie
    /// The answering node's; absent only with codes that need only COOKIE.
    public var hoa: HomeAddress?
    /// The source that the probe came from. In-path there is none, and "cookie required" has it too.
    public var observed: Endpoint?
    /// Over the probe's CHALLENGE.
    public var signature: Signature?
    public var text: String?

    public init(
        code: ResponseCode, cookie: Cookie, hoa: HomeAddress?, observed: Endpoint? = nil, signature: Signature? = nil, text: String? = nil
    ) {
        self.code = code
        self.cookie = cookie
        self.hoa = hoa
        self.observed = observed
        self.signature = signature
        self.text = text
    }

    init?(_ code: ResponseCode, _ options: SignalOptions) {
        guard let cookie = options.cookie else { return nil }
        self.init(
            code: code, cookie: cookie, hoa: options.hoa, observed: options.observedMasked, signature: options.pathSignature, text: options.text)
    }

    var options: SignalOptions {
        var options = SignalOptions()
        options.cookie = cookie
        options.hoa = hoa
        options.observedMasked = observed
        options.pathSignature = signature
        options.text = text
        return options
    }
}
