import IMSCore
import MATSignal

/// What the cluster's keys are called. All begin with the configured prefix; what follows is text, so that `etcdctl get --prefix` shows it.
///
/// ```
///   c/<HoA>/<length>                     the newest certificate that was issued for that HoA
///   f                                    the format that all this is in: 1
///   g/<gate>                             how often servers have given a visitor of this gate a first address (VisitorGates)
///   i/<instance>                         a sign of life of one imsd, written again and again
///   j/<token>                            a token, by which nodes join
///   k                                    the secrets that cookies are made with
///   l/<HoA>/<length>                     to which key that HoA was given
///   m/<HoA>/<length>                     a mapping
///   n/<instance>/<HoA>/<length>          that the node of this HoA is bound at the instance
///   p/<instance>/<HoA>/<length>/<HoA>/<length>      what the instance is to tell the first HoA's node of the second's
///   r/<HoA>/<length>                     a mapping of another IMS's node that is remembered
///   s/<instance>/<HoA>/<length>/<port>/<address>    a subscription, and the instance that granted it
/// ```
/// HoA and address are the 32 hexadecimal digits of their 16 octets. Every instance follows all of it.
struct ClusterKeys: Sendable {
    let prefix: [UInt8]

    init(prefix: String) { self.prefix = Array(prefix.utf8) }

    enum Key: Equatable, Sendable {
        case certificate(IPPrefix)
        case format
        case instance(InstanceID)
        case cookies
        case mapping(IPPrefix)
        /// A token, a lease, or a visitors' gate.
        case row(StoredRow.Kind, key: [UInt8])
        case binding(InstanceID, IPPrefix)
        case handOver(InstanceID, to: IPPrefix, of: IPPrefix)
        case remembered(IPPrefix)
        case subscription(InstanceID, IPPrefix, Endpoint)
    }

    func octets(_ key: Key) -> [UInt8] {
        let text =
            switch key {
            case .certificate(let prefix): "c/\(Self.text(prefix))"
            case .format: "f"
            case .instance(let id): "i/\(id)"
            case .cookies: "k"
            case .mapping(let prefix): "m/\(Self.text(prefix))"
            case .binding(let id, let prefix): "n/\(id)/\(Self.text(prefix))"
            case .row(.token, let key): "j/\(Hexadecimal.write(key))"
            case .row(.lease, let key): "l/\(Hexadecimal.write(key.prefix(16)))/\(key.dropFirst(16).first ?? 128)"
            case .row(.visitorGate, let key): "g/\(Hexadecimal.write(key))"
            case .handOver(let id, let node, let peer): "p/\(id)/\(Self.text(node))/\(Self.text(peer))"
            case .remembered(let prefix): "r/\(Self.text(prefix))"
            case .subscription(let id, let prefix, let endpoint):
                "s/\(id)/\(Self.text(prefix))/\(endpoint.port)/\(Self.hex(endpoint.address))"
            }
        return prefix + text.utf8
    }

    /// - Returns: `nil` for a key that is none of ours.
    func parse(_ octets: [UInt8]) -> Key? {
        guard octets.starts(with: prefix) else { return nil }
        let parts = octets.dropFirst(prefix.count).split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
            .map { String(decoding: $0, as: UTF8.self) }
        switch (parts.first, parts.count) {
        case ("c", 3): return Self.prefix(parts[1], parts[2]).map { .certificate($0) }
        case ("f", 1): return .format
        case ("g", 2): return Hexadecimal.parse(parts[1]).flatMap { $0.count == 2 ? .row(.visitorGate, key: $0) : nil }
        case ("i", 2): return InstanceID(parts[1]).map { .instance($0) }
        case ("j", 2): return Hexadecimal.parse(parts[1]).flatMap { $0.count == 8 ? .row(.token, key: $0) : nil }
        case ("k", 1): return .cookies
        case ("l", 3): return Self.prefix(parts[1], parts[2]).map { .row(.lease, key: $0.address.octets + [$0.length]) }
        case ("m", 3): return Self.prefix(parts[1], parts[2]).map { .mapping($0) }
        case ("n", 4):
            guard let id = InstanceID(parts[1]), let prefix = Self.prefix(parts[2], parts[3]) else { return nil }
            return .binding(id, prefix)
        case ("p", 6):
            guard let id = InstanceID(parts[1]), let node = Self.prefix(parts[2], parts[3]), let peer = Self.prefix(parts[4], parts[5])
            else { return nil }
            return .handOver(id, to: node, of: peer)
        case ("r", 3): return Self.prefix(parts[1], parts[2]).map { .remembered($0) }
        case ("s", 6):
            guard let id = InstanceID(parts[1]), let prefix = Self.prefix(parts[2], parts[3]), let port = UInt16(parts[4]),
                let address = Self.address(parts[5])
            else { return nil }
            return .subscription(id, prefix, Endpoint(address, port: port))
        default: return nil
        }
    }

    /// What every instance follows.
    var followed: (key: [UInt8], end: [UInt8]) { (prefix + [UInt8(ascii: "c")], prefix + [UInt8(ascii: "t")]) }

    private static func text(_ prefix: IPPrefix) -> String { "\(hex(prefix.address))/\(prefix.length)" }

    private static func hex(_ address: IPAddress) -> String { hex(UInt128(address.high) << 64 | UInt128(address.low)) }

    static func hex(_ number: UInt128) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 32 - digits.count) + digits
    }

    /// - Returns: `nil` unless these are 32 hexadecimal digits.
    static func number(_ hex: String) -> UInt128? {
        guard hex.utf8.count == 32, !hex.hasPrefix("+") else { return nil }
        return UInt128(hex, radix: 16)
    }

    private static func prefix(_ hex: String, _ length: String) -> IPPrefix? {
        guard let address = address(hex), let length = UInt8(length) else { return nil }
        return IPPrefix(address, length: length)
    }

    private static func address(_ hex: String) -> IPAddress? {
        number(hex).map { IPAddress(high: UInt64(truncatingIfNeeded: $0 >> 64), low: UInt64(truncatingIfNeeded: $0)) }
    }
}

/// Names one running imsd among those of its cluster: drawn at random at each start. As text, 16 hexadecimal digits.
struct InstanceID: Hashable, Comparable, Sendable, CustomStringConvertible {
    let number: UInt64

    init(number: UInt64) { self.number = number }

    init?(_ text: String) {
        guard text.utf8.count == 16, !text.hasPrefix("+"), let number = UInt64(text, radix: 16) else { return nil }
        self.number = number
    }

    var description: String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    static func < (a: InstanceID, b: InstanceID) -> Bool { a.number < b.number }
}
