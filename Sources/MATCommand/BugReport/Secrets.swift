import MATSignal

/// What must not leave this host, and how it is taken out of texts that do.
///
/// Two ways, so that one's gap is the other's: what is written as secrets are (private keys, tokens, PEM, values of keys with such names), and
/// what stands in the files that the configuration names as secret, wherever it turns up.
struct Secrets: Sendable {
    static let replacement = "(removed)"
    /// Shorter contents would be found in words that have nothing to do with them.
    private static let lengthMin = 6

    /// Longest first, so that no part of one is left.
    private let known: [String]

    /// - Parameter contents: of files with secrets.
    init(contents: [String] = []) {
        let words = contents.flatMap { text in
            // Comments, PEM's frame and a label, as a private key's line has, are words that stand elsewhere too; what is behind a label is secret.
            text.split(whereSeparator: \.isNewline).filter { !$0.hasPrefix("#") && !$0.hasPrefix("-----") }.flatMap { line in
                [line] + (line.firstIndex(of: ":").map { [line[line.index(after: $0)...]] } ?? [])
            }
        }
        known = Set(words.map { $0.trimming(while: \.isWhitespace) }.filter { $0.count >= Self.lengthMin }).sorted { ($1.count, $0) < ($0.count, $1) }
    }

    /// Files whose contents are secret, as configurations name them: keys, and files with a secret or a password.
    static func files(namedIn configuration: String) -> [String] {
        configuration.matches(of: /(?:^|[\s{,])(?:[a-z]+-)*(?:key|secret-file|password-file)\s*:\s*["']?(\/[^\s,}"']+)/).map { String($0.1) }
    }

    /// Any text, such as a log.
    func removed(from text: String) -> String {
        var text = text
        for word in known { text = text.replacing(word, with: Self.replacement) }
        text = text.replacing(/-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----[^-]*(-----END [A-Z0-9 ]*PRIVATE KEY-----)?/, with: Self.replacement)
        text = text.replacing(/mat-ed25519-private:[ \t]*[^\s]+/, with: "mat-ed25519-private: \(Self.replacement)")
        return text.replacing(/mat-join:[^\s"']+/, with: "mat-join:\(Self.replacement)")
    }

    /// A configuration: without comments, which may be anything, and without values that should have been in files of their own.
    func removed(fromConfiguration text: String) -> String {
        let lines = text.split(whereSeparator: \.isNewline).map { $0.replacing(/(^|\s+)#.*$/, with: "") }.filter { !$0.allSatisfy(\.isWhitespace) }
        let bare = lines.map { line in
            line.replacing(/([a-z-]*(?:secret|password|passphrase|token|private)[a-z-]*)(\s*:\s*)(\[[^\]]*\]|"[^"]*"|'[^']*'|[^\s,}]+)/) { match in
                let isPath = match.1.hasSuffix("-file") && match.3.contains("/")
                return isPath ? String(match.0) : "\(match.1)\(match.2)\(Self.replacement)"
            }
        }
        return removed(from: bare.joined(separator: "\n"))
    }
}

extension Substring {
    fileprivate func trimming(while isLeftOut: (Character) -> Bool) -> String {
        var rest = self
        while let first = rest.first, isLeftOut(first) { rest = rest.dropFirst() }
        while let last = rest.last, isLeftOut(last) { rest = rest.dropLast() }
        return String(rest)
    }
}
