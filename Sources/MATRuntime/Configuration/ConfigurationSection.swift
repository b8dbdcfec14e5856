import Yams

/// One mapping of a configuration file, with typed getters.
///
/// Getters do not throw. What they find wrong goes into the file's report and they return `nil`, the default, or an empty
/// list, so that a program reads its whole configuration in one go and the user sees every mistake at once:
///
///     let file = try ConfigurationFile.read(path: path)
///     let port = file.value("port", .port, default: 6288)
///     let store = file.required("store", .path)          // nil only if it was reported
///     let prefixes = file.sections("prefixes").map { $0.required("prefix", .prefix) }
///     try file.finish()                                   // throws everything found, unknown keys too
public final class ConfigurationSection {
    /// Entries of one list; more is a mistake of whatever generated the file.
    public static let listEntriesMax = 10_000

    /// The way to this section, such as `prefixes[0]`; empty for the file itself.
    public let path: String
    /// Line of the section's first key; `nil` if the section does not stand in the file.
    public let line: Int?

    private struct Entry {
        let line: Int?
        let node: Node
    }

    private let report: ConfigurationReport
    private var entries: [String: Entry] = [:]
    private var asked: Set<String> = []
    private var children: [ConfigurationSection] = []

    /// - Parameter node: the mapping; `nil` for a section that isn't in the file, where every getter yields its default.
    init(report: ConfigurationReport, path: String, line: Int?, node: Node.Mapping?) {
        self.report = report
        self.path = path
        self.line = line
        for (key, value) in node ?? [:] {
            guard case .scalar(let scalar) = key, !scalar.string.isEmpty else {
                report.add(line: key.mark?.line, path: path, "a key is not a plain word", "write key: value")
                continue
            }
            entries[scalar.string] = Entry(line: scalar.mark?.line, node: value)
        }
    }

    /// Whether the section stands in the file (it may be empty there).
    public var isPresent: Bool { line != nil }

    /// Whether the key stands in this section. Does not count as reading it.
    public func has(_ key: String) -> Bool { entries[key] != nil }

    /// Whether the key stands in this section with a list as its value. Does not count as reading it.
    public func isList(_ key: String) -> Bool {
        if case .sequence? = entries[key]?.node { return true }
        return false
    }

    /// Whether the key stands in this section with a section as its value. Does not count as reading it.
    public func isSection(_ key: String) -> Bool {
        if case .mapping? = entries[key]?.node { return true }
        return false
    }

    /// Whether the key stands in this section with a word as its value. Does not count as reading it.
    public func isWord(_ key: String) -> Bool {
        guard let node = entries[key]?.node, case .scalar = node else { return false }
        return !isEmptyScalar(node)
    }

    // MARK: Scalars

    /// The value, or `nil` if the key is absent or its value was rejected.
    public func value<T>(_ key: String, _ kind: ConfigurationKind<T>) -> T? {
        guard let entry = entry(for: key) else { return nil }
        return read(entry.node, path: path(of: key), line: entry.line, kind)
    }

    /// The value, or the default if the key is absent (or its value was rejected, in which case `finish` throws).
    public func value<T>(_ key: String, _ kind: ConfigurationKind<T>, default: T) -> T {
        value(key, kind) ?? `default`
    }

    /// The value of a key that must be there; `nil` only after a report.
    public func required<T>(_ key: String, _ kind: ConfigurationKind<T>) -> T? {
        if !has(key) { reportMissing(key) }
        return value(key, kind)
    }

    // MARK: Lists and sections

    /// The values of a list, empty if the key is absent. Rejected entries are left out.
    public func list<T>(_ key: String, _ kind: ConfigurationKind<T>) -> [T] {
        nodes(key, example: "- value").enumerated().compactMap { index, node in
            read(node, path: "\(path(of: key))[\(index)]", line: node.mark?.line, kind)
        }
    }

    /// The values of a list, or the default if the key is absent.
    public func list<T>(_ key: String, _ kind: ConfigurationKind<T>, default: [T]) -> [T] {
        has(key)
            ? list(key, kind)
            : {
                asked.insert(key); return `default`
            }()
    }

    /// The values of a list that must be there and hold at least one.
    public func requiredList<T>(_ key: String, _ kind: ConfigurationKind<T>) -> [T] {
        if !has(key) { reportMissing(key) }
        if case .sequence(let sequence)? = entries[key]?.node, sequence.isEmpty {
            reject(key, "the list is empty", "give at least one entry")
        }
        return list(key, kind)
    }

    /// The section under a key. Absent, it is returned empty, so that all its defaults apply.
    public func section(_ key: String) -> ConfigurationSection {
        let entry = entry(for: key)
        var mapping: Node.Mapping?
        switch entry?.node {
        case .mapping(let found)?: mapping = found
        case let node? where isEmptyScalar(node): break  // All its keys are commented out.
        case .some: reject(key, "a section is expected", "indent its keys under \(key):")
        case nil: break
        }
        return child(path: path(of: key), line: entry?.line, mapping)
    }

    /// The section under a key that must be there.
    public func requiredSection(_ key: String) -> ConfigurationSection {
        if !has(key) { reportMissing(key) }
        return section(key)
    }

    /// The sections of a list, empty if the key is absent.
    public func sections(_ key: String) -> [ConfigurationSection] {
        nodes(key, example: "- key: value").enumerated().compactMap { index, node in
            let path = "\(path(of: key))[\(index)]"
            guard case .mapping(let mapping) = node else {
                report.add(line: node.mark?.line, path: path, "a section is expected", "write its keys as - key: value")
                return nil
            }
            return child(path: path, line: node.mark?.line ?? 0, mapping)
        }
    }

    // MARK: Checks and the end

    /// Reports a mistake that only the program can see, such as two values that contradict each other.
    ///
    /// - Parameter key: the key it belongs to; `nil` for the section as a whole.
    public func reject(_ key: String?, _ reason: String, _ remedy: String? = nil) {
        let line = key.flatMap { entries[$0]?.line } ?? self.line
        report.add(line: line, path: key.map(path(of:)) ?? path, reason, remedy)
    }

    /// Reports keys nobody asked for, here and in all sections that were read, and throws all that was found wrong in the file.
    public func finish() throws(ConfigurationError) {
        reportUnknown()
        if let error = report.error { throw error }
    }

    private func reportUnknown() {
        for (key, entry) in entries where !asked.contains(key) {
            let near = NearMatch.best(for: key, among: asked.subtracting(entries.keys).sorted())
            let remedy = near.map { "did you mean \($0)?" } ?? "remove it; known here: \(asked.sorted().joined(separator: ", "))"
            report.add(line: entry.line, path: path(of: key), "unknown key", remedy)
        }
        for child in children { child.reportUnknown() }
    }

    // MARK: Nodes

    /// Counts as reading the key.
    private func entry(for key: String) -> Entry? {
        asked.insert(key)
        return entries[key]
    }

    private func path(of key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    private func child(path: String, line: Int?, _ mapping: Node.Mapping?) -> ConfigurationSection {
        let section = ConfigurationSection(report: report, path: path, line: line, node: mapping)
        children.append(section)
        return section
    }

    private func reportMissing(_ key: String) {
        asked.insert(key)
        let place = path.isEmpty ? "the file" : path
        report.add(line: line, path: path(of: key), "is missing", "add \(key): to \(place)")
    }

    private func isEmptyScalar(_ node: Node) -> Bool {
        guard case .scalar(let scalar) = node else { return false }
        return scalar.style == .plain && ["", "~", "null"].contains(scalar.string)
    }

    private func read<T>(_ node: Node, path: String, line: Int?, _ kind: ConfigurationKind<T>) -> T? {
        guard case .scalar(let scalar) = node else {
            report.add(
                line: line, path: path, "a single value is expected here, not a list or section", "write it behind the colon")
            return nil
        }
        guard !isEmptyScalar(node) else {
            report.add(line: line, path: path, "has no value", "give one or remove the line")
            return nil
        }
        switch kind.parse(scalar.string) {
        case .value(let value): return value
        case .rejected(let reason, let remedy):
            report.add(line: scalar.mark?.line ?? line, path: path, "\"\(scalar.string.prefix(200))\" \(reason)", remedy)
            return nil
        }
    }

    private func nodes(_ key: String, example: String) -> [Node] {
        guard let entry = entry(for: key), !isEmptyScalar(entry.node) else { return [] }
        guard case .sequence(let sequence) = entry.node else {
            reject(key, "a list is expected", "write each entry on a line of its own as \(example)")
            return []
        }
        guard sequence.count <= Self.listEntriesMax else {
            reject(key, "has \(sequence.count) entries", "at most \(Self.listEntriesMax) are allowed")
            return []
        }
        return Array(sequence)
    }
}
