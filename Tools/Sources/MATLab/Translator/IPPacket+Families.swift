import MATSignal

/// The same packet in the other family, by RFC 7915, as a NAT64 makes it.
extension IPPacket {
    /// IPv6 packets of this length or more come out with "don't fragment": shorter ones fit all IPv6 links (RFC 7915 section 5.1).
    private static let fragmentableOctetsMax = 1260

    /// - Returns: `nil` for what has no counterpart there.
    func translated(source: Endpoint, destination: Endpoint, identification: UInt16 = 0) -> IPPacket? {
        guard source.address.family != family, destination.address.family != family, case .flow(let transport) = content else { return nil }
        guard let payload = payload(transport, source, destination) else { return nil }
        return IPPacket(header(payload, source, destination, identification) + payload, isQuote: isCut)
    }

    /// An error, with the quote that was translated already.
    func translated(source: IPAddress, destination: IPAddress, quote: IPPacket) -> IPPacket? {
        guard case .error = content, source.family != family, quote.family == source.family, let head = errorHead() else { return nil }
        var payload = Array(head.prefix(2)) + [0, 0] + head.suffix(4) + quote.octets
        // Errors are no longer than the smallest packet that every link takes.
        payload = Array(payload.prefix(family == .ipv4 ? 1232 : 548))
        var sum = Checksum()
        if source.family == .ipv6 { Self.addPseudoHeader(&sum, source, destination, payload.count, 58) }
        sum.add(payload[...])
        payload.replaceSubrange(2..<4, with: [UInt8(truncatingIfNeeded: sum.field >> 8), UInt8(truncatingIfNeeded: sum.field)])
        let (from, to) = (Endpoint(source, port: 0), Endpoint(destination, port: 0))
        return IPPacket(header(payload, from, to, 0, icmp: true) + payload)
    }

    /// Less is here than the header says, as of a packet that is quoted.
    private var isCut: Bool { octets.count < length }
    private var length: Int { family == .ipv4 ? Int(Self.word(octets, 2)) : 40 + Int(Self.word(octets, 4)) }

    private func header(_ payload: [UInt8], _ source: Endpoint, _ destination: Endpoint, _ identification: UInt16, icmp: Bool = false) -> [UInt8] {
        let payloadLength = icmp ? payload.count : max(payload.count, length - transportStart)
        let addresses = source.address.packetOctets + destination.address.packetOctets
        let isICMP = icmp || content == .flow(.echo)
        func octets(_ word: Int) -> [UInt8] { [UInt8(truncatingIfNeeded: word >> 8), UInt8(truncatingIfNeeded: word)] }
        if family == .ipv4 {
            let trafficClass = self.octets[1]
            return [0x60 | trafficClass >> 4, trafficClass << 4, 0, 0] + octets(payloadLength) + [isICMP ? 58 : self.octets[9], self.octets[8]]
                + addresses
        }
        let total = payloadLength + 20
        let fragmentation: [UInt8] = total > Self.fragmentableOctetsMax ? [0, 0, 0x40, 0] : octets(Int(identification)) + [0, 0]
        let trafficClass = self.octets[0] << 4 | self.octets[1] >> 4
        var header = [0x45, trafficClass] + octets(total) + fragmentation + [self.octets[7], isICMP ? 1 : self.octets[6], 0, 0] + addresses
        var sum = Checksum()
        sum.add(header)
        header.replaceSubrange(10..<12, with: octets(Int(sum.field)))
        return header
    }

    // MARK: Payloads

    private func payload(_ transport: PortMappings.Transport, _ source: Endpoint, _ destination: Endpoint) -> [UInt8]? {
        var payload = Array(octets[transportStart..<min(octets.count, max(length, transportStart))])
        guard payload.count >= 8 else { return nil }
        let old = payload
        if transport == .echo {
            let types: [UInt8: UInt8] = [8: 128, 0: 129, 128: 8, 129: 0]
            guard let type = types[payload[0]] else { return nil }
            payload[0] = type
        }
        for (offset, port) in [(0, source.port), (2, destination.port)] {
            guard let index = portIndex(offset).map({ $0 - transportStart }) else { continue }
            payload.replaceSubrange(index..<index + 2, with: [UInt8(truncatingIfNeeded: port >> 8), UInt8(truncatingIfNeeded: port)])
        }
        guard let index = checksumIndex.map({ $0 - transportStart }) else { return payload }
        if isWithoutChecksum(index + transportStart) {
            // IPv6 receivers want one.
            if family == .ipv4, !isCut { setChecksum(&payload, index, whole(payload, source, destination)) }
            return payload
        }
        var sum = Checksum(field: Self.word(octets, index + transportStart))
        sum.remove(old[..<8])
        sum.add(payload[..<8])
        let (before, after) = (
            self.source.packetOctets + self.destination.packetOctets, source.address.packetOctets + destination.address.packetOctets
        )
        if transport != .echo || family == .ipv6 { sum.remove(before) }
        if transport != .echo || family == .ipv4 { sum.add(after) }
        if transport == .echo {
            // Its pseudo header is there in IPv6 only.
            let rest = [UInt16(truncatingIfNeeded: length - transportStart), 58]
            for word in rest { if family == .ipv6 { sum.remove(word) } else { sum.add(word) } }
        }
        setChecksum(&payload, index, transport == .udp && sum.field == 0 ? 0xFFFF : sum.field)
        return payload
    }

    private func setChecksum(_ payload: inout [UInt8], _ index: Int, _ field: UInt16) {
        payload.replaceSubrange(index..<index + 2, with: [UInt8(truncatingIfNeeded: field >> 8), UInt8(truncatingIfNeeded: field)])
    }

    private func whole(_ payload: [UInt8], _ source: Endpoint, _ destination: Endpoint) -> UInt16 {
        var sum = Checksum()
        Self.addPseudoHeader(&sum, source.address, destination.address, payload.count, 17)
        sum.add(payload)
        return sum.field == 0 ? 0xFFFF : sum.field
    }

    private static func addPseudoHeader(_ sum: inout Checksum, _ source: IPAddress, _ destination: IPAddress, _ length: Int, _ number: UInt16) {
        sum.add(source.packetOctets)
        sum.add(destination.packetOctets)
        sum.add(UInt16(truncatingIfNeeded: length))
        sum.add(number)
    }

    /// Type, code, and the second word of an ICMP error in the other family (RFC 7915 sections 4.2 and 5.2).
    private func errorHead() -> [UInt8]? {
        let (type, code) = (octets[transportStart], octets[transportStart + 1])
        func withMTU(_ type: UInt8, _ code: UInt8, _ mtu: Int) -> [UInt8] {
            [type, code, 0, 0, UInt8(truncatingIfNeeded: mtu >> 8), UInt8(truncatingIfNeeded: mtu)]
        }
        switch (family, type, code) {
        case (.ipv4, 3, 4):
            // 1280 where the router did not say how much.
            return withMTU(2, 0, max(1280, Int(Self.word(octets, transportStart + 6)) + 20))
        case (.ipv4, 3, 3): return [1, 4, 0, 0, 0, 0]
        case (.ipv4, 3, 9...10), (.ipv4, 3, 13...15): return [1, 1, 0, 0, 0, 0]
        case (.ipv4, 3, 0...1), (.ipv4, 3, 5...8), (.ipv4, 3, 11...12): return [1, 0, 0, 0, 0, 0]
        case (.ipv4, 11, _): return [3, code, 0, 0, 0, 0]
        case (.ipv6, 1, 4): return [3, 3, 0, 0, 0, 0]
        case (.ipv6, 1, 1): return [3, 10, 0, 0, 0, 0]
        case (.ipv6, 1, _): return [3, 1, 0, 0, 0, 0]
        case (.ipv6, 2, _): return withMTU(3, 4, max(68, Int(Self.word(octets, transportStart + 6)) - 20))
        case (.ipv6, 3, _): return [11, code, 0, 0, 0, 0]
        default: return nil
        }
    }
}
