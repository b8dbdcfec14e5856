import MATSignal

/// An IP packet whose ports can be read and set: whole headers of UDP, TCP and ICMP echo, and ICMP errors with what they quote.
struct IPPacket {
    enum Content: Equatable {
        case flow(PortMappings.Transport)
        /// An error that quotes a packet, which begins at this octet.
        case error(quote: Int)
    }

    private(set) var octets: [UInt8]
    let family: AddressFamily
    /// Where the transport's header begins.
    let transportStart: Int
    let content: Content

    /// - Returns: `nil` for what a NAT does not translate: other protocols, fragments but first ones, what is cut short.
    ///
    /// - Parameter isQuote: of a packet that an error quotes only the beginning is there: 8 octets after its header at least.
    init?(_ octets: [UInt8], isQuote: Bool = false) {
        guard let first = octets.first else { return nil }
        let protocolNumber: UInt8
        switch first >> 4 {
        case 4:
            family = .ipv4
            transportStart = Int(first & 15) * 4
            guard transportStart >= 20, octets.count >= transportStart else { return nil }
            // Not the first of several fragments: it has no ports.
            guard Self.word(octets, 6) & 0x1FFF == 0 else { return nil }
            protocolNumber = octets[9]
        case 6:
            family = .ipv6
            transportStart = 40
            guard octets.count >= 40 else { return nil }
            protocolNumber = octets[6]
        default: return nil
        }
        guard octets.count >= transportStart + 8 else { return nil }
        switch (protocolNumber, family, octets[transportStart]) {
        case (17, _, _): content = .flow(.udp)
        case (6, _, _):
            guard isQuote || octets.count >= transportStart + 20 else { return nil }
            content = .flow(.tcp)
        case (1, .ipv4, 0), (1, .ipv4, 8), (58, .ipv6, 128), (58, .ipv6, 129): content = .flow(.echo)
        case (1, .ipv4, 3), (1, .ipv4, 11), (1, .ipv4, 12), (58, .ipv6, 1...4):
            guard !isQuote else { return nil }
            content = .error(quote: transportStart + 8)
        default: return nil
        }
        self.octets = octets
    }

    /// The beginning of the packet that an error quotes.
    var quoted: IPPacket? {
        guard case .error(let quote) = content else { return nil }
        return IPPacket(Array(octets[quote...]), isQuote: true)
    }

    // MARK: Fields

    /// A host answers another's echo request.
    var isEchoReply: Bool { content == .flow(.echo) && (octets[transportStart] == 0 || octets[transportStart] == 129) }
    var source: IPAddress { address(sourceStart) }
    var destination: IPAddress { address(sourceStart + family.addressOctets) }
    var sourceStart: Int { family == .ipv4 ? 12 : 8 }
    private func address(_ start: Int) -> IPAddress { IPAddress(octets: octets[start..<start + family.addressOctets]) ?? IPAddress(high: 0, low: 0) }

    /// Of echo requests and replies the identifier is the port of who asked; the other side has none.
    var sourceEndpoint: Endpoint { Endpoint(source, port: port(0)) }
    var destinationEndpoint: Endpoint { Endpoint(destination, port: port(2)) }

    private func port(_ offset: Int) -> UInt16 {
        if content == .flow(.echo) {
            return isEchoReply != (offset == 0) ? Self.word(octets, transportStart + 4) : 0
        }
        return Self.word(octets, transportStart + offset)
    }

    static func word(_ octets: [UInt8], _ index: Int) -> UInt16 {
        guard index + 1 < octets.count else { return 0 }
        return UInt16(octets[index]) << 8 | UInt16(octets[index + 1])
    }

    // MARK: Changes

    mutating func setSource(_ endpoint: Endpoint) { set(endpoint, sourceStart, 0) }
    mutating func setDestination(_ endpoint: Endpoint) { set(endpoint, sourceStart + family.addressOctets, 2) }

    /// An address of the packet's own family, and the port beside it.
    private mutating func set(_ endpoint: Endpoint, _ addressStart: Int, _ portOffset: Int) {
        let new = endpoint.address.packetOctets
        guard new.count == family.addressOctets else { return }
        let old = octets[addressStart..<addressStart + new.count]
        var header = Checksum(field: Self.word(octets, 10))
        header.remove(old)
        header.add(new)
        if let index = checksumIndex, !isWithoutChecksum(index) {
            var sum = Checksum(field: Self.word(octets, index))
            // ICMP's sum in IPv4 has no pseudo header.
            if content == .flow(.udp) || content == .flow(.tcp) || family == .ipv6 {
                sum.remove(old)
                sum.add(new)
            }
            if let port = portIndex(portOffset) {
                sum.remove(Self.word(octets, port))
                sum.add(endpoint.port)
            }
            // To UDP a sum of zero is none.
            put(sum.field == 0 && content == .flow(.udp) ? 0xFFFF : sum.field, index)
        }
        if family == .ipv4 { put(header.field, 10) }
        octets.replaceSubrange(addressStart..<addressStart + new.count, with: new)
        if let port = portIndex(portOffset) { put(endpoint.port, port) }
    }

    func portIndex(_ offset: Int) -> Int? {
        switch content {
        case .flow(.udp), .flow(.tcp): transportStart + offset
        case .flow(.echo): isEchoReply != (offset == 0) ? transportStart + 4 : nil
        case .error: nil
        }
    }

    /// Of the transport's checksum. A quoted packet may end before it.
    var checksumIndex: Int? {
        let index =
            switch content {
            case .flow(.udp): transportStart + 6
            case .flow(.tcp): transportStart + 16
            case .flow(.echo), .error: transportStart + 2
            }
        return index + 1 < octets.count ? index : nil
    }

    func isWithoutChecksum(_ index: Int) -> Bool { content == .flow(.udp) && Self.word(octets, index) == 0 }

    private mutating func put(_ word: UInt16, _ index: Int) {
        octets[index] = UInt8(truncatingIfNeeded: word >> 8)
        octets[index + 1] = UInt8(truncatingIfNeeded: word)
    }

    /// Puts another quote in place of the one that is there; of the same length.
    mutating func setQuote(_ quote: IPPacket) {
        guard case .error(let start) = content, quote.octets.count == octets.count - start else { return }
        var sum = Checksum(field: Self.word(octets, transportStart + 2))
        sum.remove(octets[start...])
        sum.add(quote.octets)
        octets.replaceSubrange(start..., with: quote.octets)
        put(sum.field, transportStart + 2)
    }
}
