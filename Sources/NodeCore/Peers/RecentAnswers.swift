import IMTPlan

/// How many packets have come lately for those that went out, so that it can be told whether silence means anything: who is spoken to and never
/// answers is as silent where packets pass.
///
/// Readings in which there were packets count, the last one in full, each one before it for three quarters of the next. So a conversation that
/// rested for an hour is what it was, and a question answered at its beginning is forgotten within seconds of a stream in one direction.
struct RecentAnswers: Hashable, Sendable {
    /// Fewer that came, so weighed, show no habit of answering.
    static let cameMin = 2.0
    private static let weightBefore = 0.75

    private var last: PeerPackets
    private var sent = 0.0
    private var came = 0.0

    /// - Parameter last: what was exchanged before its readings are followed.
    init(after last: PeerPackets = PeerPackets()) { self.last = last }

    mutating func counted(_ packets: PeerPackets) {
        defer { last = packets }
        // Counts begin anew with the kernel's tables.
        let isLess = packets.sent < last.sent || packets.came < last.came
        let new = isLess ? PeerPackets() : PeerPackets(sent: packets.sent - last.sent, came: packets.came - last.came)
        guard new.sum > 0 else { return }
        sent = sent * Self.weightBefore + Double(new.sent)
        came = came * Self.weightBefore + Double(new.came)
    }

    var isEmpty: Bool { sent + came == 0 }

    /// Packets that came for each that went out; 0 if too few came to tell.
    var perPacketSent: Double { came < Self.cameMin ? 0 : came / max(1, sent) }
}
