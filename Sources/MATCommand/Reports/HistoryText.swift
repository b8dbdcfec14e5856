import MATControl

/// `mat history` for people, the latest last.
enum HistoryText {
    static func text(_ report: HistoryReport, _ style: TextStyle = .plain) -> String {
        guard !report.handovers.isEmpty else { return "no handovers since the start of matd\n" }
        var table = TextTable([
            ("WHEN (UTC)", .left), ("HOME", .left), ("FROM", .left), ("TO", .left), ("WHY", .left), ("REGISTERED", .right), ("PEERS", .right),
            ("HELD", .right), ("LOST", .right),
        ])
        table.spills = [1, 2, 3, 4]
        for handover in report.handovers {
            table.add([
                String(Quantity.date(unixMilliseconds: handover.atMilliseconds).dropLast(4)), handover.home, handover.from.map(place) ?? "nowhere",
                handover.to.map(place) ?? "nowhere yet", why(handover),
                handover.registeredAfterMilliseconds.map(time) ?? (handover.to == nil ? "" : "not yet"), peers(handover),
                handover.packetsHeld == 0 ? "" : "\(handover.packetsHeld)", handover.packetsLost == 0 ? "" : "\(handover.packetsLost)",
            ])
        }
        return style.page(table.lines(style))
    }

    private static func place(_ place: HistoryReport.Place) -> String {
        place.address + (place.interface.map { " (\($0))" } ?? "")
    }

    private static func why(_ handover: HistoryReport.Handover) -> String {
        let reason =
            switch handover.reason {
            case .addressGone: "address gone"
            case .pathDead: "no answers there"
            case .chosen: "asked for"
            case .preferred: "better address"
            }
        if let time = handover.withoutAddressMilliseconds { return "\(reason), none for \(self.time(time))" }
        return handover.to != nil && handover.overlap ? "\(reason), with overlap" : reason
    }

    private static func peers(_ handover: HistoryReport.Handover) -> String {
        guard handover.peers > 0 else { return "" }
        return "\(handover.peersTold) of \(handover.peers)" + (handover.toldAfterMilliseconds.map { ", \(time($0))" } ?? "")
    }

    static func time(_ milliseconds: Int64) -> String {
        milliseconds < 10_000 ? "\(milliseconds) ms" : Quantity.duration(seconds: milliseconds / 1000)
    }
}
