import Glibc
import MATCore
import MATRuntime
import MATSignal

/// Bindings in a file, so that nodes behind translators are reached over a restart (protocol.md section 11.3). It may be old or missing: nodes
/// whose binding is not known bind anew when they refresh it, within 25 s.
///
/// ```
///   mat bindings 1
///   HoA/LENGTH ADDRESS PORT ADDRESS PORT UNTIL SIGNED CERTIFIED LIFETIME COOKIE CLIENT ISSUER      a line for each; the node's endpoint, then the own one
/// ```
/// UNTIL, SIGNED and CERTIFIED are Unix times in ms, LIFETIME seconds, COOKIE the cookie's Unix time in s, CLIENT its client half in hexadecimal
/// digits, ISSUER a visitor's IMS key id likewise, or a hyphen. Who knows CLIENT can refresh the binding from the node's own endpoint, so others may not read the file.
package enum BindingFile {
    private static let head = "mat bindings 1"
    private static let fieldsCount = 12
    /// 200 octets for each of a million.
    private static let octetsMax = 200 << 20

    package static func write(_ bindings: [SavedBinding], to path: String) throws(SystemError) {
        try TextFile.replace(path, with: text(bindings), mode: 0o600)
    }

    /// - Returns: what can be read; nothing if there is no such file.
    package static func read(_ path: String) throws(SystemError) -> [SavedBinding] {
        do throws(SystemError) {
            return parse(try TextFile.read(path, octetsMax: octetsMax))
        } catch {
            if error.errno == ENOENT { return [] }
            throw error
        }
    }

    static func text(_ bindings: [SavedBinding]) -> String {
        var text = head + "\n"
        for binding in bindings {
            text += "\(binding.prefix) \(binding.endpoint.address) \(binding.endpoint.port) \(binding.local.address) \(binding.local.port)"
            text += " \(binding.until) \(binding.signedAt) \(binding.certificateNotAfter) \(binding.lifetimeSeconds) \(binding.cookieTime)"
            text += " \(String(binding.clientCookie, radix: 16)) \(binding.issuer.map { String($0, radix: 16) } ?? "-")\n"
        }
        return text
    }

    /// Lines that can't be read are left out: their nodes bind anew.
    static func parse(_ text: String) -> [SavedBinding] {
        let lines = text.split(separator: "\n")
        guard lines.first.map(String.init) == head else { return [] }
        return lines.dropFirst().compactMap(binding)
    }

    private static func binding(_ line: Substring) -> SavedBinding? {
        let fields = line.split(separator: " ").map(String.init)
        guard fields.count == fieldsCount, let prefix = IPPrefix(fields[0]), let endpoint = place(fields[1], fields[2]),
            let local = place(fields[3], fields[4]), let until = UInt64(fields[5]), let signedAt = UInt64(fields[6]),
            let notAfter = UInt64(fields[7]), let lifetime = UInt32(fields[8]), let cookieTime = UInt32(fields[9]),
            let client = UInt64(fields[10], radix: 16), fields[11] == "-" || UInt64(fields[11], radix: 16) != nil
        else { return nil }
        return SavedBinding(
            prefix: prefix, issuer: UInt64(fields[11], radix: 16), endpoint: endpoint, local: local, until: until, signedAt: signedAt,
            certificateNotAfter: notAfter,
            lifetimeSeconds: lifetime, cookieTime: cookieTime, clientCookie: client)
    }

    private static func place(_ address: String, _ port: String) -> Endpoint? {
        guard let address = IPAddress(address), let port = UInt16(port), port != 0 else { return nil }
        return Endpoint(address, port: port)
    }
}
