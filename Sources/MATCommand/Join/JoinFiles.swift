import Glibc
import MATRuntime
import MATSignal

/// A home address, and the file with its certificate.
typealias JoinedHome = (hoa: HomeAddress, certificate: String)

/// What joining leaves on a host: key, certificates, the token (by which the address can be given back) and matd's configuration.
struct JoinFiles {
    /// /etc/matd unless somebody says otherwise.
    let directory: String

    var key: String { "\(directory)/node.key" }
    var token: String { "\(directory)/join.token" }
    var configuration: String { "\(directory)/matd.yaml" }

    /// Without colons, which some file systems and commands take for something else.
    func certificate(of hoa: HomeAddress) -> String {
        "\(directory)/\("\(hoa)".map { $0 == ":" ? "-" : String($0) }.joined()).certificate"
    }

    /// The node's key, made if there is none: who joins again has the same, and so gets the same address.
    func takeKey() throws(CommandFailure) -> (key: SigningKey, isNew: Bool) {
        if access(key, F_OK) == 0 { return (try PrivateKeyFile.read(key), false) }
        return (try PrivateKeyFile.make(key, replacing: false), true)
    }

    /// What an earlier `mat join` did; `nil` if there was none.
    func record() -> JoinRecord? { (try? TextFile.read(token)).flatMap { try? JoinRecord.parse($0) } }

    func recordToLeave() throws(CommandFailure) -> JoinRecord {
        let text: String
        do throws(SystemError) { text = try TextFile.read(token) } catch { throw CommandFailure("this host did not join by a token: \(error)") }
        do throws(JoinToken.Malformed) { return try JoinRecord.parse(text) } catch { throw CommandFailure("\(token) is damaged: \(error)") }
    }

    func makeDirectory() throws(CommandFailure) {
        guard mkdir(directory, 0o755) == 0 || errno == EEXIST else {
            throw CommandFailure("\(SystemError("make \(directory)")); run mat join as root, or name another directory with --directory")
        }
        guard access(directory, W_OK) == 0 else {
            throw CommandFailure("\(directory) can't be written; run mat join as root, or name another directory with --directory")
        }
    }

    func write(_ path: String, _ text: String, _ permissions: FileReplacement.Permissions) throws(CommandFailure) {
        do throws(SystemError) {
            try TextFile.replace(path, with: text, permissions)
        } catch {
            throw CommandFailure("\(error)")
        }
    }

    /// Whether a configuration has these home addresses, as matd reads it: however they are written, and not where they stand in a comment or
    /// under another key. A file that can't be read as YAML has none.
    static func lists(_ hoas: [HomeAddress], in configuration: String) -> Bool {
        guard let file = try? ConfigurationFile.parse(configuration, file: "matd.yaml") else { return false }
        let listed = file.sections("home-addresses").compactMap { $0.value("address", .homeAddress) }
        return hoas.allSatisfy(listed.contains)
    }

    /// Whether a configuration consists of comments and empty lines.
    static func saysNothing(_ text: String) -> Bool {
        text.split(whereSeparator: \.isNewline).allSatisfy { line in line.first { !$0.isWhitespace }.map { $0 == "#" } ?? true }
    }

    /// As `yaml(_:key:)` wrote it for these.
    func yaml(_ homes: [HomeAddress]) -> String { Self.yaml(homes.map { ($0, certificate(of: $0)) }, key: key) }

    /// What a file of ours begins with, whatever was written into it since.
    private static let firstLine = "# Made by `mat join`."

    /// What is left of a matd.yaml when the node leaves: all of one that was there before, the comments below what `mat join` wrote, or nothing (`nil`).
    static func left(of present: String, begun: String) -> String? {
        guard present.hasPrefix(firstLine) else { return present.isEmpty ? nil : present }
        guard present.hasPrefix(begun + "\n") else { return nil }
        let rest = String(present.dropFirst(begun.count + 1))
        return rest.isEmpty || !saysNothing(rest) ? nil : rest
    }

    /// matd.yaml for these homes: complete, with what people change first named in comments.
    static func yaml(_ homes: [JoinedHome], key: String) -> String {
        let entries = homes.map { home in
            """
              - address: "\(home.hoa)"
                key: \(key)
                certificate: \(home.certificate)
            """
        }
        return """
            \(firstLine) See matd.yaml(5) for all that can stand here; `matd --check` says what is wrong.
            home-addresses:
            \(entries.joined(separator: "\n"))

            # Which destinations this machine talks to from its home address: everything, nothing, or a list of prefixes.
            #traffic: everything

            """
    }
}
