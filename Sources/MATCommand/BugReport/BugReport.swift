/// What `mat bugreport` writes: texts under heads, in order, for a person to read before it is sent.
struct BugReport: Sendable {
    /// Of one section: more than anybody reads, and what a node with 100,000 peers would write is far more.
    static let sectionOctetsMax = 1 << 20

    struct Section: Sendable {
        var title: String
        var text: String
    }

    private(set) var sections: [Section] = []
    private let secrets: Secrets

    init(_ secrets: Secrets) { self.secrets = secrets }

    mutating func add(_ title: String, _ text: String) { append(title, secrets.removed(from: text)) }

    mutating func add(configuration path: String, _ text: String) { append("\(path), without comments", secrets.removed(fromConfiguration: text)) }

    /// What can't be had is told as well: it may be the reason for all.
    mutating func add(_ title: String, missing reason: String) { append(title, "(\(secrets.removed(from: reason)))") }

    private mutating func append(_ title: String, _ text: String) {
        var lines = text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        while lines.last?.allSatisfy(\.isWhitespace) ?? false { lines.removeLast() }
        var octets = 0
        let shown = lines.prefix {
            octets += $0.utf8.count + 1
            return octets <= Self.sectionOctetsMax
        }
        let rest = lines.count - shown.count
        let body = shown.joined(separator: "\n") + (rest > 0 ? "\n(\(rest) more lines are left out)" : "")
        sections.append(Section(title: title, text: body.isEmpty ? "(nothing)" : body))
    }

    /// - Parameter head: what it is, and of when.
    func write(head: String) -> String {
        let contents = sections.enumerated().map { "\($0 + 1). \($1.title)" }
        let bodies = sections.enumerated().map { "\n==== \($0 + 1). \($1.title)\n\n\($1.text)\n" }
        return head + "\n\n" + contents.joined(separator: "\n") + "\n" + bodies.joined()
    }
}
