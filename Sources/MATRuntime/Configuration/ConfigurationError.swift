/// One thing wrong in a configuration file: where, what, and what to write instead.
public struct ConfigurationProblem: Hashable, Sendable, CustomStringConvertible {
    /// The file as it was named to the program.
    public let file: String
    /// Line number from 1; `nil` when the file as a whole is meant.
    public let line: Int?
    /// The key with the way to it, such as `prefixes[0].prefix`; empty for the file as a whole.
    public let path: String
    public let reason: String
    public let remedy: String?

    public var description: String {
        var text = file
        if let line { text += ":\(line)" }
        text += ": "
        if !path.isEmpty { text += "\(path): " }
        text += reason
        if let remedy { text += "; \(remedy)" }
        return text
    }
}

/// All that is wrong in a configuration file, in the order of its lines, so that one run of `--check` shows everything.
public struct ConfigurationError: Error, CustomStringConvertible, Sendable {
    public let problems: [ConfigurationProblem]

    /// One problem per line.
    public var description: String { problems.map(\.description).joined(separator: "\n") }
}

/// Where the sections of one file put what they find wrong.
final class ConfigurationReport {
    let file: String
    private(set) var problems: [ConfigurationProblem] = []

    init(file: String) { self.file = file }

    func add(line: Int?, path: String, _ reason: String, _ remedy: String?) {
        let problem = ConfigurationProblem(file: file, line: line, path: path, reason: reason, remedy: remedy)
        // A value may be read twice (two settings derived from one key); its mistake is still one mistake.
        if !problems.contains(problem) { problems.append(problem) }
    }

    var error: ConfigurationError? {
        problems.isEmpty
            ? nil : ConfigurationError(problems: problems.sorted { ($0.line ?? 0, $0.path) < ($1.line ?? 0, $1.path) })
    }
}
