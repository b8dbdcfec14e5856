import MATControl
import MATSignal

/// Tokens, and what was given by them and by hand, for people.
enum TokensText {
    static func tokens(_ tokens: [TokensReport.Token], now: Now, _ style: TextStyle = .plain) -> String {
        guard !tokens.isEmpty else { return "no tokens\n" }
        var table = TextTable([
            ("TOKEN", .left), ("GIVES", .left), ("USED", .right), ("MADE", .right), ("GOOD FOR", .right), ("CERTIFICATES", .left),
        ])
        table.spills = [1]
        for token in tokens {
            let lifetime = token.certificateMilliseconds.map { Quantity.duration(milliseconds: Int64(clamping: $0)) } ?? "as configured"
            table.add([
                token.id, token.gives.joined(separator: ", "), "\(token.uses)\(token.usesMax.map { " of \($0)" } ?? "")",
                ago(token.createdAtMilliseconds, now), goodFor(token, now), token.renewal ? lifetime : "\(lifetime), not renewed",
            ])
        }
        return style.page(table.lines(style))
    }

    private static func goodFor(_ token: TokensReport.Token, _ now: Now) -> String {
        if token.revokedAtMilliseconds != nil { return "revoked" }
        if let most = token.usesMax, token.uses >= most { return "spent" }
        guard let end = token.expiresAtMilliseconds else { return "ever" }
        return end > now.wallMilliseconds ? Quantity.duration(seconds: Int64(clamping: (end - now.wallMilliseconds) / 1000)) : "expired"
    }

    static func enrolled(_ report: EnrolledReport, now: Now, _ style: TextStyle = .plain) -> String {
        guard !report.homes.isEmpty else { return "nothing was given yet\n" }
        var table = TextTable([
            ("HOME ADDRESS", .left), ("KEY", .left), ("BY", .left), ("GIVEN", .right), ("VALID FOR", .right), ("LAST SEEN", .right),
        ])
        table.yields = [3: 1]
        table.spills = [1, 2]
        for home in report.homes {
            let left = home.validUntilMilliseconds.map { end in
                end > now.wallMilliseconds ? Quantity.duration(seconds: Int64(clamping: (end - now.wallMilliseconds) / 1000)) : "ended"
            }
            table.add([
                home.home, String(home.publicKey.prefix(44)), home.by, ago(home.givenAtMilliseconds, now),
                (left ?? "revoked") + (home.renewal ? "" : ", not renewed"), home.lastSeenMilliseconds.map { ago($0, now) } ?? "never",
            ])
        }
        let more = report.next.map { ["more with --after \($0)"] } ?? []
        return style.page(table.lines(style) + more)
    }

    private static func ago(_ time: UInt64, _ now: Now) -> String {
        Quantity.duration(seconds: Int64(clamping: (now.wallMilliseconds - min(time, now.wallMilliseconds)) / 1000))
    }
}
