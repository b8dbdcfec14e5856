/// A TCP or UDP checksum that was left to a network card which the packet never met.
///
/// A kernel that encapsulates leaves the sum inside to whoever sends the datagram. Between namespaces of one host, or virtual machines, that is
/// nobody: the field still has the pseudo header's sum alone, which another kernel would know, and who reads the datagram does not.
package enum LeftSum {
    static let tcp: UInt8 = 6, udp: UInt8 = 17

    /// Finishes the sum of a packet whose field has the pseudo header's alone; leaves all others as they are: if one is damaged, the stack shall
    /// notice. The octets are one whole IP packet.
    package static func finish(_ packet: UnsafeMutableRawBufferPointer) {
        guard let (start, field, number) = place(in: UnsafeRawBufferPointer(packet)) else { return }
        // The field holds the pseudo header's sum, so that over all of the rest is the whole.
        var whole = InternetSum()
        whole.add(UnsafeRawBufferPointer(packet).part(start..<packet.count))
        packet.put(whole.sent(number), at: field)
    }

    /// Where an unfinished sum begins, where it stands, and of which protocol it is; `nil` if the packet has none.
    static func place(in octets: UnsafeRawBufferPointer) -> (start: Int, field: Int, number: UInt8)? {
        let isIPv4 = octets[0] >> 4 == 4
        let (start, number) = isIPv4 ? (Int(octets[0] & 0xF) * 4, octets[9]) : behindOptions(octets)
        // Of a fragment no card finishes anything.
        guard number == tcp || number == udp, !isIPv4 || octets.number(at: 6) & 0x3FFF == 0 else { return nil }
        let field = start + (number == tcp ? 16 : 6)
        guard octets.count >= field + 2 else { return nil }
        var pseudo = InternetSum()
        pseudo.addPseudoHeader(of: octets, number, octets: octets.count - start)
        return pseudo.folded == octets.number(at: field) ? (start, field, number) : nil
    }

    /// IPv6's hop-by-hop and destination options; no packet has more of them than one before and one behind others (RFC 8200, 4.1).
    private static let options: [UInt8] = [0, 60], optionsMax = 3

    /// What stands behind the options of an IPv6 packet. A routing header is not passed: the sum is that of another destination.
    private static func behindOptions(_ octets: UnsafeRawBufferPointer) -> (start: Int, number: UInt8) {
        var (start, number) = (40, octets[6])
        for _ in 0..<optionsMax where options.contains(number) && start + 2 <= octets.count {
            (start, number) = (start + (Int(octets[start + 1]) + 1) * 8, octets[start])
        }
        return (start, number)
    }
}
