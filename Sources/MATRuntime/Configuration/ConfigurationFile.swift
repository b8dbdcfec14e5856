import Glibc
import Yams

/// Reads a YAML configuration file into sections with typed getters.
public enum ConfigurationFile {
    /// A configuration is written by people or for them; a larger file is a wrong path.
    public static let fileBytesMax = 1 << 20

    /// - Throws: when the file can't be read, isn't YAML, or its top isn't a mapping. What is wrong with single values is
    ///   collected and thrown by `ConfigurationSection.finish()`.
    public static func read(path: String) throws(ConfigurationError) -> ConfigurationSection {
        let bytes = try contents(path)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw failure(path, nil, "is not UTF-8 text", "save it as UTF-8")
        }
        return try parse(text, file: path)
    }

    /// Parses text that is already at hand; `file` is the name used in messages.
    public static func parse(_ text: String, file: String) throws(ConfigurationError) -> ConfigurationSection {
        let root: Node?
        do {
            if let fault = try ConfigurationAliases.fault(in: text) { throw fault }
            root = try Yams.compose(yaml: text)
        } catch {
            throw problem(from: error, file: file)
        }
        let report = ConfigurationReport(file: file)
        switch root {
        case nil:
            return ConfigurationSection(report: report, path: "", line: 1, node: nil)
        case .mapping(let mapping)?:
            return ConfigurationSection(report: report, path: "", line: 1, node: mapping)
        case .scalar(let scalar)? where scalar.string.isEmpty:
            return ConfigurationSection(report: report, path: "", line: 1, node: nil)
        case let other?:
            throw failure(file, other.mark?.line, "the file must consist of keys and values", "write key: value")
        }
    }

    private static func failure(_ file: String, _ line: Int?, _ reason: String, _ remedy: String?) -> ConfigurationError {
        ConfigurationError(problems: [ConfigurationProblem(file: file, line: line, path: "", reason: reason, remedy: remedy)])
    }

    private static func problem(from error: any Error, file: String) -> ConfigurationError {
        if let fault = error as? ConfigurationAliases.Fault { return failure(file, fault.line, fault.reason, fault.remedy) }
        switch error as? YamlError {
        case .scanner(let context, let text, let mark, _)?, .parser(let context, let text, let mark, _)?,
            .composer(let context, let text, let mark, _)?:
            return failure(
                file, mark.line, "\(words(text.trimmed, context?.text.trimmed)) (column \(mark.column))", "check indentation, colons and quotes here")
        case .duplicatedKeysInMapping(let duplicates, let context)?:
            return failure(
                file, context.mark.line,
                "\(ConfigurationAliases.asWritten(duplicates.joined(separator: ", "))) is given more than once in this section",
                "keep one of them")
        case .reader(let text, _, _, _)?:
            return failure(file, nil, "can't be read as text: \(text)", "save it as UTF-8 without control characters")
        default:
            return failure(file, nil, "can't be read as YAML: \(error)", nil)
        }
    }

    /// libyaml says what it was doing, "while parsing a block mapping", or what it expected there; and of its depth how a program of C changes that.
    private static func words(_ problem: String, _ context: String?) -> String {
        if problem.hasPrefix("Maximum nesting level") { return "sections or lists are nested too deeply" }
        guard let context, !context.isEmpty else { return problem }
        return context.hasPrefix("while") ? "\(problem) \(context)" : "\(context), \(problem)"
    }

    private static func contents(_ path: String) throws(ConfigurationError) -> [UInt8] {
        let descriptor: Int32
        do throws(SystemError) {
            descriptor = try TextFile.open(path)
        } catch {
            let remedy =
                error.errno == ENOENT
                ? "create it or name another with --config" : error.errno == EACCES ? "run as root or make it readable" : nil
            throw failure(path, nil, error.reason, remedy)
        }
        defer { close(descriptor) }
        var bytes = [UInt8]()
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw failure(path, nil, String(cString: strerror(errno)), nil)
            }
            if count == 0 { return bytes }
            bytes += chunk.prefix(count)
            if bytes.count > fileBytesMax {
                throw failure(path, nil, "has more than \(fileBytesMax) bytes", "name the configuration file")
            }
        }
    }
}

extension String {
    /// libyaml's texts come with line ends and blanks around them.
    fileprivate var trimmed: String {
        let isBlank: (Character) -> Bool = { $0.isWhitespace }
        return String(drop(while: isBlank).reversed().drop(while: isBlank).reversed())
    }
}
