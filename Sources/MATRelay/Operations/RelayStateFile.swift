import MATCore
import MATRuntime
import MATSignal
import RelayCore

/// What a relay writes down for its next run: cookie secrets, what of the month is used, bindings. Lines of words:
///
/// ```
/// mat-relay 1
/// secret HEX                         the one that cookies are made with; then the one before, if there is one
/// month 2026-11
/// used PREFIX OCTETS
/// binding PREFIX ENDPOINT LOCAL UNTIL SIGNED CERTIFIED LIFETIME COOKIE-TIME CLIENT-COOKIE ISSUER
/// ```
/// Times are Unix times in ms (the cookie's in s), cookies and the issuer's key id hexadecimal; `-` for the issuer of a resident.
enum RelayStateFile {
    private static let head = "mat-relay 1"
    /// A binding takes some 200 octets.
    static let octetsMax = 4 << 30

    struct Contents: Hashable, Sendable {
        var secrets: [[UInt8]] = []
        var saved: SavedRelay
    }

    static func write(_ contents: Contents) -> String {
        var lines = [head]
        for secret in contents.secrets { lines.append("secret \(Hexadecimal.write(secret))") }
        if !contents.saved.month.isEmpty { lines.append("month \(contents.saved.month)") }
        for usage in contents.saved.octetsOfMonth { lines.append("used \(usage.prefix) \(usage.octets)") }
        for binding in contents.saved.bindings {
            let issuer = binding.issuer.map { String($0, radix: 16) } ?? "-"
            lines.append(
                "binding \(binding.prefix) \(binding.endpoint) \(binding.local) \(binding.until) \(binding.signedAt) \(binding.certificateNotAfter) "
                    + "\(binding.lifetimeSeconds) \(binding.cookieTime) \(String(binding.clientCookie, radix: 16)) \(issuer)")
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// - Returns: `nil` if it is no such file; what stands in single lines that can't be read is left out, and counted.
    static func parse(_ text: String) -> (contents: Contents, unreadable: Int)? {
        var lines = text.split(separator: "\n")[...]
        guard lines.popFirst() == head[...] else { return nil }
        var contents = Contents(saved: SavedRelay(month: "", octetsOfMonth: [], bindings: []))
        var unreadable = 0
        for line in lines where !take(line.split(separator: " "), into: &contents) { unreadable += 1 }
        return (contents, unreadable)
    }

    private static func take(_ words: [Substring], into contents: inout Contents) -> Bool {
        switch (words.first, words.count) {
        case ("secret", 2):
            guard let secret = Hexadecimal.parse(words[1]), secret.count == 16 else { return false }
            contents.secrets.append(secret)
        case ("month", 2): contents.saved.month = String(words[1])
        case ("used", 3):
            guard let prefix = IPPrefix(String(words[1])), let octets = UInt64(words[2]) else { return false }
            contents.saved.octetsOfMonth.append(SavedRelay.Usage(prefix: prefix, octets: octets))
        case ("binding", 11):
            guard let binding = parseBinding(words) else { return false }
            contents.saved.bindings.append(binding)
        default: return false
        }
        return true
    }

    private static func parseBinding(_ words: [Substring]) -> SavedBinding? {
        guard let prefix = IPPrefix(String(words[1])), let endpoint = parseEndpoint(words[2]), let local = parseEndpoint(words[3]),
            let until = UInt64(words[4]), let signedAt = UInt64(words[5]), let notAfter = UInt64(words[6]), let lifetime = UInt32(words[7]),
            let cookieTime = UInt32(words[8]), let client = UInt64(words[9], radix: 16)
        else { return nil }
        let issuer = words[10] == "-" ? nil : UInt64(words[10], radix: 16)
        guard issuer != nil || words[10] == "-" else { return nil }
        return SavedBinding(
            prefix: prefix, issuer: issuer, endpoint: endpoint, local: local, until: until, signedAt: signedAt, certificateNotAfter: notAfter,
            lifetimeSeconds: lifetime, cookieTime: cookieTime, clientCookie: client)
    }

    private static func parseEndpoint(_ text: Substring) -> Endpoint? {
        guard case .value(let endpoint) = ConfigurationKind<Endpoint>.endpoint(defaultPort: 0).parse(String(text)), endpoint.port != 0 else {
            return nil
        }
        return endpoint
    }
}
