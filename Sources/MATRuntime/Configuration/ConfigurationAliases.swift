import Yams

/// What aliases (`*name`, for what stands at `&name`) make of a configuration.
///
/// An alias is as cheap as a word until somebody goes through what it stands for, which may be aliases again: ten levels of ten are 10^10 values in a
/// few lines. Yams goes through keys, to find those that are given twice, and a file like that kept it busy for ever. So the text is read once with
/// words in the place of aliases, and what they would make of it is counted in that.
struct ConfigurationAliases {
    /// Words, lists and sections, with each alias counted as what it stands for. A file of `ConfigurationFile.fileBytesMax` without aliases has fewer.
    static let valuesMax = 1 << 20
    /// Lists and sections in one another, likewise: what libyaml allows a file to write out, and far from what takes the stack.
    static let depthMax = 1000

    struct Fault: Error, Hashable {
        var line: Int?
        var reason: String
        var remedy: String
    }

    /// Begins the words that stand in the place of aliases. For private use, so nobody's word begins with it, and libyaml takes it as part of a word.
    private static let mark: Unicode.Scalar = "\u{E000}"

    /// What a value comes to, with all that it leads to.
    private struct Extent {
        var values = 1
        var depth = 0

        mutating func add(_ other: Extent) {
            values = min(values + other.values, ConfigurationAliases.valuesMax + 1)
            depth = max(depth, other.depth + 1)
        }
    }

    /// Of anchors, by name: the latest of that name so far, as for an alias at the same place.
    private var anchored: [String: Extent] = [:]

    /// What is wrong with a text for its aliases. `nil` if it has none, or they do no harm.
    ///
    /// - Throws: `YamlError` if it is no YAML whatever aliases stand for.
    static func fault(in text: String) throws -> Fault? {
        guard let plain = withWords(text) else { return nil }
        let parser = try Parser(yaml: plain)
        guard let root = try parser.singleRoot() else { return nil }
        var aliases = ConfigurationAliases()
        do throws(Fault) {
            // Nodes know their anchors for as long as the parser is there.
            _ = try withExtendedLifetime(parser) { () throws(Fault) in try aliases.extent(of: root) }
            return nil
        } catch {
            return error
        }
    }

    /// As an error has it, in which a word may be named that stands for an alias.
    static func asWritten(_ text: String) -> String { text.replacing(String(mark), with: "*") }

    /// The text with a word for each alias; `nil` if it has none. In comments and within words nothing but letters changes.
    static func withWords(_ text: String) -> String? {
        let octets = Array(text.utf8)
        func isName(_ index: Int) -> Bool {
            guard octets.indices.contains(index) else { return false }
            return switch octets[index] {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                UInt8(ascii: "_"), UInt8(ascii: "-"):
                true
            default: false
            }
        }
        func isBlank(_ index: Int) -> Bool { octets.indices.contains(index) && (octets[index] == 0x20 || octets[index] == 0x09) }
        var words: [UInt8] = []
        words.reserveCapacity(octets.count)
        var (index, count) = (0, 0)
        while index < octets.count {
            let begins = index == 0 || " \t\r\n[{,:?".utf8.contains(octets[index - 1])
            guard octets[index] == UInt8(ascii: "*"), begins, isName(index + 1) else {
                words.append(octets[index])
                index += 1
                continue
            }
            count += 1
            words += Array(String(mark).utf8)
            index += 1
            while isName(index) || isBlank(index) {
                words.append(octets[index])
                index += 1
            }
            // An alias ends at the colon; a word would go on behind one without a blank.
            if index < octets.count, octets[index] == UInt8(ascii: ":") {
                words += [UInt8(ascii: ":"), 0x20]
                index += 1
            }
        }
        return count > 0 ? String(decoding: words, as: UTF8.self) : nil
    }

    // MARK: Counting

    /// In the order of the text, so that an alias finds what its anchor had there. As deep as the file is written, which libyaml bounds.
    private mutating func extent(of node: Node) throws(Fault) -> Extent {
        var extent = Extent()
        var anchor: Anchor?
        switch node {
        case .scalar(let scalar):
            if let name = Self.alias(scalar) { extent = anchored[name] ?? extent }
            anchor = scalar.anchor
        case .sequence(let sequence):
            for element in sequence { extent.add(try self.extent(of: element)) }
            anchor = sequence.anchor
        case .mapping(let mapping):
            for (key, value) in mapping {
                let name = try self.extent(of: key)
                guard case .scalar = key, name.depth == 0 else {
                    throw Fault(line: key.mark?.line, reason: "a key is not a plain word", remedy: "write key: value")
                }
                extent.add(name)
                extent.add(try self.extent(of: value))
            }
            anchor = mapping.anchor
        case .alias: break  // The parser makes none.
        }
        guard extent.values <= Self.valuesMax else {
            throw Fault(line: node.mark?.line, reason: "aliases make more than \(Self.valuesMax) values of it", remedy: "write out what is meant")
        }
        guard extent.depth <= Self.depthMax else {
            throw Fault(
                line: node.mark?.line, reason: "sections or lists are nested too deeply, by aliases", remedy: "write out what is meant")
        }
        if let anchor { anchored[anchor.rawValue] = extent }
        return extent
    }

    private static func alias(_ scalar: Node.Scalar) -> String? {
        guard scalar.style == .plain, scalar.string.unicodeScalars.first == mark else { return nil }
        return String(scalar.string.unicodeScalars.dropFirst())
    }
}
