import MATCore
import MATSignal

/// One IMS of a reverse name: the RDATA of type IMS (protocol.md section 8).
public struct IMSRecord: Hashable, Sendable {
    /// TYPE65400, from the range for private use (RFC 6895 section 3.1).
    public static let type: UInt16 = 65400
    /// Octets of one Ed25519 public key.
    public static let keyOctets = 32
    /// Keys in one record: the current one and those of a rotation, generously.
    public static let keysMax = 16
    /// Addresses in one record.
    public static let addressesMax = 16
    /// Relays in one record.
    public static let relaysMax = 8

    private static let keyParameter: UInt16 = 1
    private static let addressesParameter: UInt16 = 2
    private static let relayParameter: UInt16 = 3
    /// An address and a port.
    private static let endpointOctets = 18

    /// Lower values are tried first.
    public var priority: UInt16
    /// Share among those of equal priority, as in SRV (RFC 2782).
    public var weight: UInt16
    public var port: UInt16
    public var target: DomainName
    /// Ed25519 public keys of the IMS, 32 octets each.
    public var keys: [[UInt8]]
    /// Addresses of the target: a hint that saves the look-up.
    public var addresses: [IPAddress]
    /// Relays that serve the HoAs.
    public var relays: [RelayHost]

    public init(
        priority: UInt16 = 10, weight: UInt16 = 5, port: UInt16 = SignalPort.ims, target: DomainName, keys: [[UInt8]],
        addresses: [IPAddress] = [], relays: [RelayHost] = []
    ) {
        self.priority = priority
        self.weight = weight
        self.port = port
        self.target = target
        self.keys = keys
        self.addresses = addresses
        self.relays = relays
    }

    // MARK: Wire
    //
    // priority 2 | weight 2 | port 2 | target: uncompressed wire-format domain name | parameters: { key 2 | length 2 | value }
    // parameter 1: an Ed25519 public key, 32 octets, repeatable     parameter 2: addresses, 16 octets each
    // parameter 3: a relay, address 16 and port 2 for each of its addresses, repeatable                        others are skipped

    /// - Throws: if anything is cut off, a known parameter has a length it can't have, or there is more of it than the bounds
    ///   allow.
    public static func decode(_ rdata: [UInt8]) throws(DNSError) -> IMSRecord {
        var rest = rdata[...]
        let priority = try readNumber(&rest, "the priority")
        let weight = try readNumber(&rest, "the weight")
        let port = try readNumber(&rest, "the port")
        let target = try DomainName.decode(&rest)
        var record = IMSRecord(priority: priority, weight: weight, port: port, target: target, keys: [])
        while !rest.isEmpty {
            let key = try readNumber(&rest, "a parameter's key")
            let length = Int(try readNumber(&rest, "a parameter's length"))
            guard rest.count >= length else { throw DNSError("parameter \(key) of an IMS record is cut off") }
            try record.add(key, rest.prefix(length))
            rest = rest.dropFirst(length)
        }
        return record
    }

    public func encode() -> [UInt8] {
        var rdata = [UInt8]()
        func put(_ number: UInt16) { rdata += [UInt8(number >> 8), UInt8(truncatingIfNeeded: number)] }
        put(priority)
        put(weight)
        put(port)
        rdata += target.wire
        for key in keys.prefix(Self.keysMax) {
            put(Self.keyParameter)
            put(UInt16(clamping: key.count))
            rdata += key
        }
        if !addresses.isEmpty {
            let held = addresses.prefix(Self.addressesMax)
            put(Self.addressesParameter)
            put(UInt16(clamping: 16 * held.count))
            for address in held { rdata += address.octets }
        }
        for relay in relays.prefix(Self.relaysMax) where !relay.endpoints.isEmpty {
            let held = relay.endpoints.prefix(RelayHost.endpointsMax)
            put(Self.relayParameter)
            put(UInt16(clamping: Self.endpointOctets * held.count))
            for endpoint in held {
                rdata += endpoint.address.octets
                put(endpoint.port)
            }
        }
        return rdata
    }

    private mutating func add(_ key: UInt16, _ value: ArraySlice<UInt8>) throws(DNSError) {
        switch key {
        case Self.keyParameter:
            guard value.count == Self.keyOctets else {
                throw DNSError("a key of an IMS record has \(value.count) octets instead of 32")
            }
            guard keys.count < Self.keysMax else { throw DNSError("an IMS record has more than \(Self.keysMax) keys") }
            keys.append(Array(value))
        case Self.addressesParameter:
            guard !value.isEmpty, value.count % 16 == 0 else {
                throw DNSError("the addresses of an IMS record have \(value.count) octets, not a multiple of 16")
            }
            guard addresses.count + value.count / 16 <= Self.addressesMax else {
                throw DNSError("an IMS record has more than \(Self.addressesMax) addresses")
            }
            for start in stride(from: value.startIndex, to: value.endIndex, by: 16) {
                if let address = IPAddress(octets: value[start..<start + 16]) { addresses.append(address) }
            }
        case Self.relayParameter:
            relays.append(try Self.relay(value))
            guard relays.count <= Self.relaysMax else { throw DNSError("an IMS record has more than \(Self.relaysMax) relays") }
        default:
            break
        }
    }

    private static func relay(_ value: ArraySlice<UInt8>) throws(DNSError) -> RelayHost {
        guard !value.isEmpty, value.count % endpointOctets == 0 else {
            throw DNSError("a relay of an IMS record has \(value.count) octets, not a multiple of \(endpointOctets)")
        }
        guard value.count / endpointOctets <= RelayHost.endpointsMax else {
            throw DNSError("a relay of an IMS record has more than \(RelayHost.endpointsMax) addresses")
        }
        var relay = RelayHost([])
        var rest = value
        while let address = IPAddress(octets: rest.prefix(16)) {
            rest = rest.dropFirst(16)
            relay.endpoints.append(Endpoint(address, port: try readNumber(&rest, "a relay's port")))
        }
        return relay
    }

    private static func readNumber(_ rest: inout ArraySlice<UInt8>, _ what: String) throws(DNSError) -> UInt16 {
        guard let high = rest.popFirst(), let low = rest.popFirst() else { throw DNSError("\(what) of an IMS record is cut off") }
        return UInt16(high) << 8 | UInt16(low)
    }
}
