import MATControl
import MATCore

/// `mat top`: how this node is, who it talks to with how much, and its last move. Fits any width from 80 columns.
enum TopText {
    static func lines(_ status: NodeReport, _ history: HistoryReport, _ entries: [TrafficRates.Entry], wallMilliseconds: UInt64, _ style: TextStyle)
        -> [String]
    {
        let total = entries.compactMap(\.rate).reduce(TrafficRates.Rate(), +)
        let peers = max(status.peersCount, status.peers.count)
        let facts = [
            status.registered ? style.good("registered") : style.bad("not registered"),
            "up \(Quantity.duration(milliseconds: status.uptimeMilliseconds))",
            Quantity.count(Int64(peers), "peer"), Quantity.count(Int64(clamping: status.counters.handovers), "handover"),
        ]
        var lines = ["\(style.head("matd")) \(facts.joined(separator: ", "))"]
        lines.append(
            "in \(Quantity.bits(perSecond: total.octetsIn * 8)), \(Quantity.rate(total.packetsIn)) packets/s; out \(Quantity.bits(perSecond: total.octetsOut * 8)), \(Quantity.rate(total.packetsOut)) packets/s"
        )
        if status.peers.count > 1 { lines += PeersText.summary(status.peers, count: peers, troubled: status.peersTroubled) }
        if let last = history.handovers.last { lines.append("last handover " + move(last, wallMilliseconds)) }
        var links = TextTable([("VIA", .left), ("MOBILE ADDRESS", .left), ("STATE", .left)])
        for (number, locator) in status.locators.enumerated() {
            let isFirst = locator.interface == status.chosenInterface ?? status.locators.first?.interface
            links.add([locator.interface, locator.address, locator.state + (number == 0 || isFirst ? ", preferred" : "")])
        }
        lines += [""] + (links.isEmpty ? [style.bad("no mobile address")] : links.lines(style)) + [""]
        return style.folded(lines + (entries.isEmpty ? ["no peers"] : table(entries, style)))
    }

    private static func table(_ entries: [TrafficRates.Entry], _ style: TextStyle) -> [String] {
        var table = TextTable([
            ("PEER", .left), ("STATE", .left), ("AT", .left), ("VIA", .left), ("IN", .right), ("OUT", .right), ("PACKETS/S IN", .right),
            ("OUT", .right),
            ("MOVES", .right), ("AGE", .right),
        ])
        table.yields = [2: 4, 3: 1, 6: 3, 7: 2, 8: 5, 9: 6]
        for entry in entries {
            let peer = entry.peer
            func shown(_ value: (TrafficRates.Rate) -> String) -> String { entry.rate.map(value) ?? "-" }
            table.add([
                peer.home, peer.detourMilliseconds == nil ? PeersText.state(peer) : "detour", PeersText.place(peer.locator, home: peer.home),
                peer.interface ?? "-",
                shown { Quantity.bits(perSecond: $0.octetsIn * 8) }, shown { Quantity.bits(perSecond: $0.octetsOut * 8) },
                shown { Quantity.rate($0.packetsIn) }, shown { Quantity.rate($0.packetsOut) }, "\(peer.switches)",
                Quantity.duration(milliseconds: peer.ageMilliseconds),
            ])
        }
        return table.lines(style)
    }

    private static func move(_ handover: HistoryReport.Handover, _ wallMilliseconds: UInt64) -> String {
        let ago = Int64(clamping: wallMilliseconds) - Int64(clamping: handover.atMilliseconds)
        // Addresses of both would not fit.
        func link(_ place: HistoryReport.Place?) -> String? { place.map { $0.interface ?? $0.address } }
        let registered = handover.registeredAfterMilliseconds.map { ", registered after \(HistoryText.time($0))" } ?? ""
        return
            "\(Quantity.duration(seconds: ago / 1000)) ago, \(link(handover.from) ?? "nowhere") -> \(link(handover.to) ?? "nowhere yet")\(registered)"
    }
}
