import MATSignal

/// What `mat join` did to this host, so that `mat leave` undoes that and no more: file `join.token`, the token on its first line.
///
/// ```
/// mat-join:HOST:BASE64URL
/// home 192.0.2.129
/// key made
/// ```
struct JoinRecord: Hashable {
    var token: JoinToken
    /// Those that the token gave; `nil` in a file of a version that did not say.
    var homes: [HomeAddress]?
    /// Whether the node's key was made for it; one that was there before is still needed by whoever made it.
    var madeKey: Bool

    func write() -> String {
        let lines = [token.text] + (homes ?? []).map { "home \($0.address)" } + (madeKey ? ["key made"] : [])
        return lines.joined(separator: "\n") + "\n"
    }

    static func parse(_ text: String) throws(JoinToken.Malformed) -> JoinRecord {
        let lines = text.split(whereSeparator: \.isNewline)
        let token = try JoinToken.parse(lines.first.map { $0.filter { !$0.isWhitespace } } ?? "")
        let words = lines.dropFirst().map { $0.split(separator: " ") }
        guard !words.isEmpty else { return JoinRecord(token: token, homes: nil, madeKey: true) }
        let homes = words.filter { $0.count == 2 && $0[0] == "home" }.compactMap { IPAddress(String($0[1])).map { HomeAddress($0) } }
        return JoinRecord(token: token, homes: homes, madeKey: words.contains(["key", "made"]))
    }
}
