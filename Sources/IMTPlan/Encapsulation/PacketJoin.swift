import MATSignal

/// Puts packets of one flow that came one after the other into one, as receive offload does: the stack then goes through its layers once for
/// all of them. They are joined where they lie; who writes them gathers their data.
///
///     none ── begin ──► one packet ── joins ──► several ── shorter data, or TCP's PSH ──► complete: takes no more
///                          │ not of TCP or UDP, cut up, a flag beside ACK and PSH, wrong sum
///                          └──► takes none
///
/// Only packets are joined whose checksum is right: of the whole the stack takes it for granted.
package struct PacketJoin {
    /// Of one joined packet.
    package static let packetsMax = 64

    private var first: UnsafeMutableRawBufferPointer?
    private var layout: Layout?
    private var each = 0
    private var total = 0
    private var nextSequence: UInt32 = 0
    private var isComplete = false
    private var isVerified = false
    private(set) package var packetsCount = 0
    /// Whether the device takes joined datagrams.
    private let joinsDatagrams: Bool

    package init(joinsDatagrams: Bool) { self.joinsDatagrams = joinsDatagrams }

    /// A packet that may be the first of several; whatever was before is done with.
    package mutating func begin(_ packet: UnsafeMutableRawBufferPointer) {
        (first, packetsCount, total) = (packet, 1, packet.count)
        (isComplete, isVerified) = (false, false)
        layout = Layout(UnsafeRawBufferPointer(packet), joinsDatagrams: joinsDatagrams)
        guard let layout else { return }
        each = packet.count - layout.headers
        if layout.isTCP {
            nextSequence = UnsafeRawBufferPointer(packet).long(at: layout.transport + 4) &+ UInt32(truncatingIfNeeded: each)
            isComplete = packet[layout.transport + 13] & 8 != 0
        }
    }

    /// - Returns: where the data of this packet begins, if it goes on where the last one ended.
    package mutating func joins(_ packet: UnsafeRawBufferPointer) -> Int? {
        guard let first, let layout, !isComplete, packetsCount < Self.packetsMax, packet.count > layout.headers, packet.count <= each + layout.headers
        else { return nil }
        let data = packet.count - layout.headers
        guard total + data <= 0xFFFF, let other = Layout(packet, joinsDatagrams: joinsDatagrams), other == layout else { return nil }
        let before = UnsafeRawBufferPointer(first)
        guard layout.isSameFlow(before, packet) else { return nil }
        if layout.isTCP { guard packet.long(at: layout.transport + 4) == nextSequence else { return nil } }
        guard isVerified || layout.hasRightSum(before), layout.hasRightSum(packet) else { return nil }
        isVerified = true
        total += data
        packetsCount += 1
        nextSequence &+= UInt32(truncatingIfNeeded: data)
        isComplete = data < each
        if layout.isTCP, packet[layout.transport + 13] & 8 != 0 {
            isComplete = true
            first[layout.transport + 13] |= 8
        }
        return layout.headers
    }

    /// Makes the first packet's headers those of all.
    ///
    /// - Returns: what the device is to be told of the whole.
    package mutating func finish() -> OffloadHeader {
        var header = OffloadHeader()
        guard packetsCount > 1, let first, let layout else { return header }
        layout.putLength(total, into: first)
        header.segments = layout.isTCP ? (layout.isIPv4 ? .tcpIPv4 : .tcpIPv6) : .udp
        header.headerOctets = UInt16(truncatingIfNeeded: layout.headers)
        header.segmentOctets = UInt16(truncatingIfNeeded: each)
        header.unfinished = (UInt16(truncatingIfNeeded: layout.transport), layout.isTCP ? 16 : 6)
        return header
    }

    // MARK: Headers

    private struct Layout: Equatable {
        var isIPv4: Bool
        var isTCP: Bool
        var transport: Int
        var headers: Int

        /// - Returns: `nil` for packets that are never joined. The octets are one whole IP packet.
        init?(_ packet: UnsafeRawBufferPointer, joinsDatagrams: Bool) {
            isIPv4 = packet[0] >> 4 == 4
            // No options, and not a part of a packet.
            if isIPv4 { guard packet[0] == 0x45, packet.number(at: 6) & 0x3FFF == 0 else { return nil } }
            transport = isIPv4 ? 20 : 40
            let number = packet[isIPv4 ? 9 : 6]
            isTCP = number == 6
            if isTCP {
                guard packet.count >= transport + 20 else { return nil }
                headers = transport + Int(packet[transport + 12] >> 4) * 4
                guard headers >= transport + 20, packet[transport + 13] & ~8 == 0x10 else { return nil }
            } else {
                guard joinsDatagrams, number == 17, packet.count >= transport + 8 else { return nil }
                headers = transport + 8
                guard packet.number(at: transport + 6) != 0, Int(packet.number(at: transport + 4)) == packet.count - transport else { return nil }
            }
            guard packet.count > headers else { return nil }
        }

        /// All that the packets of one flow have in common: of IP all but length, identification and sum; of TCP all but sequence, flags and sum.
        func isSameFlow(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
            func same(_ range: Range<Int>) -> Bool { a.hasSameOctets(as: b, range) }
            guard isIPv4 ? same(0..<2) && same(6..<10) && same(12..<24) : same(0..<4) && same(6..<44) else { return false }
            return !isTCP || (same(transport + 8..<transport + 13) && same(transport + 14..<transport + 16) && same(transport + 18..<headers))
        }

        func hasRightSum(_ packet: UnsafeRawBufferPointer) -> Bool {
            var sum = InternetSum()
            addPseudoHeader(packet, packet.count, to: &sum)
            sum.add(packet.part(transport..<packet.count))
            return sum.folded == 0xFFFF
        }

        func putLength(_ total: Int, into packet: UnsafeMutableRawBufferPointer) {
            let length = UInt16(truncatingIfNeeded: total)
            if isIPv4 {
                packet.put(length, at: 2)
                packet.put(0 as UInt16, at: 10)
                var sum = InternetSum()
                sum.add(UnsafeRawBufferPointer(packet).part(0..<20))
                packet.put(~sum.folded, at: 10)
            } else {
                packet.put(length &- 40, at: 4)
            }
            if !isTCP { packet.put(length &- UInt16(truncatingIfNeeded: transport), at: transport + 4) }
            var sum = InternetSum()
            addPseudoHeader(UnsafeRawBufferPointer(packet), total, to: &sum)
            packet.put(sum.folded, at: transport + (isTCP ? 16 : 6))
        }

        private func addPseudoHeader(_ packet: UnsafeRawBufferPointer, _ total: Int, to sum: inout InternetSum) {
            sum.add(packet.part(isIPv4 ? 12..<20 : 8..<40))
            sum.add(UInt16(truncatingIfNeeded: total - transport))
            sum.add(isTCP ? 6 : 17 as UInt16)
        }
    }
}

extension UnsafeRawBufferPointer {
    /// Both have the range.
    fileprivate func hasSameOctets(as other: UnsafeRawBufferPointer, _ range: Range<Int>) -> Bool {
        var place = range.lowerBound
        while place + 4 <= range.upperBound {
            guard loadUnaligned(fromByteOffset: place, as: UInt32.self) == other.loadUnaligned(fromByteOffset: place, as: UInt32.self) else {
                return false
            }
            place += 4
        }
        while place < range.upperBound {
            guard self[place] == other[place] else { return false }
            place += 1
        }
        return true
    }
}
