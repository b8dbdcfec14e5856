import MATCore
import MATSignal

/// How the text of a scalar becomes a value: what the typed getters of `ConfigurationSection` take.
///
/// A kind answers with the value, or with why the text is not one and what to write instead. Programs add their own kinds
/// with `init(parse:)`.
public struct ConfigurationKind<Value> {
    public enum Outcome {
        case value(Value)
        /// - Parameter reason: continues a sentence that begins with the text in quotes ("is not a number").
        /// - Parameter remedy: what to do ("write 192.0.2.0/24").
        case rejected(reason: String, remedy: String)
    }

    /// Commands take the same texts as files, through this.
    public let parse: (String) -> Outcome

    public init(parse: @escaping (String) -> Outcome) { self.parse = parse }
}

extension ConfigurationKind where Value == String {
    /// Any text that isn't empty.
    public static var string: Self {
        Self { $0.isEmpty ? .rejected(reason: "is empty", remedy: "give a value or remove the line") : .value($0) }
    }

    /// An absolute path: a daemon's working directory is nobody's business, so a relative one would mean nothing.
    public static var path: Self {
        Self {
            $0.hasPrefix("/")
                ? .value($0)
                : .rejected(reason: "is not an absolute path", remedy: "write it from the root on, such as /var/lib/mat/file")
        }
    }
}

extension ConfigurationKind where Value == Int {
    public static func int(in range: ClosedRange<Int> = Int.min...Int.max) -> Self {
        Self { text in
            let bounds =
                range == Int.min...Int.max ? "a whole number" : "a whole number from \(range.lowerBound) to \(range.upperBound)"
            guard let number = Int(text) else { return .rejected(reason: "is not a whole number", remedy: "write \(bounds)") }
            guard range.contains(number) else { return .rejected(reason: "is out of range", remedy: "write \(bounds)") }
            return .value(number)
        }
    }
}

extension ConfigurationKind where Value == UInt16 {
    /// A UDP or TCP port, 1 to 65535.
    public static var port: Self {
        Self { text in
            guard let number = UInt16(text), number > 0 else {
                return .rejected(reason: "is not a port", remedy: "write a number from 1 to 65535")
            }
            return .value(number)
        }
    }
}

extension ConfigurationKind where Value == Bool {
    /// `true`, `yes`, `on` and their opposites, the words of YAML.
    public static var bool: Self {
        Self { text in
            switch text.lowercased() {
            case "true", "yes", "on": return .value(true)
            case "false", "no", "off": return .value(false)
            default: return .rejected(reason: "is neither true nor false", remedy: "write true or false")
            }
        }
    }
}

extension ConfigurationKind where Value == Duration {
    /// `250ms`, `30s`, `5m`, `2h`, `7d`, or a plain number of seconds; a decimal fraction is allowed (`1.5s`).
    ///
    /// - Parameter range: what is accepted; a negative duration can't be written in any case.
    public static func duration(in range: ClosedRange<Duration> = .zero ... .seconds(315_360_000)) -> Self {
        Self { text in
            guard let duration = ConfigurationDuration.parse(text) else {
                return .rejected(
                    reason: "is not a duration", remedy: "write it as in 250ms, 30s, 5m, 2h or 7d; a plain number means seconds")
            }
            guard range.contains(duration) else {
                let (low, high) = (ConfigurationDuration.write(range.lowerBound), ConfigurationDuration.write(range.upperBound))
                return .rejected(reason: "is out of range", remedy: "write a duration from \(low) to \(high)")
            }
            return .value(duration)
        }
    }
}

extension ConfigurationKind where Value == IPAddress {
    public static var address: Self {
        Self { text in
            if let address = IPAddress(text) { return .value(address) }
            return .rejected(reason: "is not an IP address", remedy: "write it as in 192.0.2.1 or 2001:db8::1")
        }
    }
}

extension ConfigurationKind where Value == HomeAddress {
    /// A home address: a unicast address that can stand in a message (protocol.md section 2).
    public static var homeAddress: Self {
        Self { text in
            guard let address = IPAddress(text) else {
                return .rejected(
                    reason: "is not an IP address", remedy: "write it as in 192.0.2.1 or 2001:db8::1, without a prefix length")
            }
            guard address.isUsableUnicast else {
                return .rejected(
                    reason: "can't be a home address", remedy: "write a unicast address that is not loopback or link-local")
            }
            return .value(HomeAddress(address))
        }
    }
}

extension ConfigurationKind where Value == IPPrefix {
    /// `192.0.2.0/24`, or an address without length for that address alone.
    public static var prefix: Self {
        Self { text in
            if let prefix = IPPrefix(text) { return .value(prefix) }
            let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
            guard let first = parts.first, let address = IPAddress(first), parts.count == 2 else {
                return .rejected(reason: "is not a prefix", remedy: "write it as in 192.0.2.0/24 or 2001:db8::/32")
            }
            let longest = address.family.addressBits
            guard let length = UInt8(parts[1]), length <= longest else {
                return .rejected(
                    reason: "has no valid prefix length", remedy: "write a length from 0 to \(longest) behind the slash")
            }
            // What is left is an address with bits beyond the length, for which we can say what was meant.
            let meant = IPPrefix(covering: address, length: length + address.family.leadingBits)
            return .rejected(reason: "has bits set beyond the prefix length", remedy: "write \(meant)")
        }
    }
}

extension ConfigurationKind where Value == Endpoint {
    /// An address with a port: `192.0.2.1:53`, `[2001:db8::1]:53`; without a port the given one is taken.
    public static func endpoint(defaultPort: UInt16) -> Self {
        Self { text in
            if let address = IPAddress(text) { return .value(Endpoint(address, port: defaultPort)) }
            let refusal = Outcome.rejected(
                reason: "is not an address with a port",
                remedy: "write it as in 192.0.2.1:\(defaultPort) or [2001:db8::1]:\(defaultPort)")
            guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]), port > 0 else {
                return refusal
            }
            var host = text[..<colon]
            if host.hasPrefix("["), host.hasSuffix("]") {
                host = host.dropFirst().dropLast()
            } else if host.contains(":") {
                return refusal
            }
            guard let address = IPAddress(String(host)) else { return refusal }
            return .value(Endpoint(address, port: port))
        }
    }
}

extension ConfigurationKind where Value == RelayHost {
    /// One relay with all its addresses, behind commas: `203.0.113.53, [2001:db8::53]:6290`; without a port the relays' own is taken.
    public static var relay: Self {
        Self { text in
            var relay = RelayHost([])
            for part in text.split(separator: ",", omittingEmptySubsequences: false) {
                let word = String(part.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
                switch ConfigurationKind<Endpoint>.endpoint(defaultPort: SignalPort.relay).parse(word) {
                case .value(let endpoint) where endpoint.address.isUsableUnicast: relay.endpoints.append(endpoint)
                case .value:
                    return .rejected(reason: "has an address that no relay can have", remedy: "write one at which nodes everywhere reach it")
                case .rejected(let reason, let remedy): return .rejected(reason: reason, remedy: remedy)
                }
            }
            guard relay.endpoints.count <= RelayHost.endpointsMax else {
                return .rejected(
                    reason: "has \(relay.endpoints.count) addresses", remedy: "write at most \(RelayHost.endpointsMax) of one relay")
            }
            return .value(relay)
        }
    }
}

extension ConfigurationKind where Value == PublicKey {
    /// Base64 of an Ed25519 public key, 32 octets, as `mat keygen` prints it.
    public static var publicKey: Self {
        Self { text in
            guard let key = KeyFile.parsePublicKey(text) else {
                return .rejected(reason: "is not a public key", remedy: "give the 44 characters that `mat keygen` prints")
            }
            return .value(key)
        }
    }
}

extension ConfigurationKind where Value: RawRepresentable & CaseIterable, Value.RawValue == String {
    /// One of an enum's words.
    public static var word: Self {
        Self { text in
            if let value = Value(rawValue: text) { return .value(value) }
            let words = Value.allCases.map(\.rawValue)
            if let near = NearMatch.best(for: text, among: words) {
                return .rejected(reason: "is not a known word", remedy: "did you mean \(near)?")
            }
            return .rejected(reason: "is not a known word", remedy: "write one of \(words.joined(separator: ", "))")
        }
    }
}
