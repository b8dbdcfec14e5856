import MATSignal

/// What a RADIUS packet says, piece by piece (RFC 2865 section 5): `type 1 | length 1 | value`.
package struct RADIUSAttribute: Hashable, Sendable {
    /// Those that are written or read here; others pass by.
    package enum Kind {
        package static let userName: UInt8 = 1, userPassword: UInt8 = 2, serviceType: UInt8 = 6, framedAddress: UInt8 = 8, replyMessage: UInt8 = 18
        package static let sessionTimeout: UInt8 = 27, callingStation: UInt8 = 31, nasIdentifier: UInt8 = 32, accountingStatus: UInt8 = 40
        package static let sessionID: UInt8 = 44, sessionTime: UInt8 = 46, terminateCause: UInt8 = 49, eventTimestamp: UInt8 = 55
        package static let portType: UInt8 = 61, tunnelClient: UInt8 = 66, messageAuthenticator: UInt8 = 80, framedIPv6Prefix: UInt8 = 97
        package static let framedIPv6Address: UInt8 = 168
    }

    /// Service-Type "Call Check": whether this one may, by what is known of it, without a person's password.
    package static let callCheck: UInt32 = 10
    /// NAS-Port-Type "Virtual".
    package static let virtualPort: UInt32 = 5
    package static let valueOctetsMax = 253

    package var kind: UInt8
    package var value: [UInt8]

    /// A longer value is cut off.
    package init(_ kind: UInt8, _ value: some Sequence<UInt8>) {
        self.kind = kind
        self.value = Array(value.prefix(Self.valueOctetsMax))
    }

    package init(_ kind: UInt8, text: String) { self.init(kind, text.utf8) }

    package init(_ kind: UInt8, number: UInt32) {
        var writer = SignalWriter(reserving: 4)
        writer.uint32(number)
        self.init(kind, writer.octets)
    }

    /// An HoA, or a mobile network's prefix.
    package init(framed prefix: IPPrefix) {
        if prefix.family == .ipv4 {
            self.init(Kind.framedAddress, prefix.address.packetOctets)
        } else if prefix.length == 128 {
            self.init(Kind.framedIPv6Address, prefix.address.octets)
        } else {
            // RFC 3162: reserved, length, prefix.
            self.init(Kind.framedIPv6Prefix, [0, prefix.length] + prefix.address.octets)
        }
    }

    package var text: String { String(decoding: value, as: UTF8.self).printable }

    /// - Returns: `nil` unless it has four octets.
    package var number: UInt32? { value.count == 4 ? value.reduce(0) { $0 << 8 | UInt32($1) } : nil }

    package static func encode(_ attributes: [Self]) -> [UInt8] {
        attributes.flatMap { [$0.kind, UInt8(truncatingIfNeeded: $0.value.count + 2)] + $0.value }
    }

    /// - Returns: `nil` if one of them is shorter than its own head, or goes beyond the end.
    package static func decode(_ octets: ArraySlice<UInt8>) -> [Self]? {
        var attributes: [Self] = []
        var rest = octets
        while let kind = rest.popFirst() {
            guard let length = rest.popFirst().map(Int.init), length >= 2, rest.count >= length - 2 else { return nil }
            attributes.append(Self(kind, rest.prefix(length - 2)))
            rest = rest.dropFirst(length - 2)
        }
        return attributes
    }
}

extension [RADIUSAttribute] {
    package subscript(kind: UInt8) -> RADIUSAttribute? { first { $0.kind == kind } }
}
