import MATControl

/// `mat explain` for people: one conversation in full, several as a table with the reasons below.
enum ExplainText {
    static func text(_ report: ExplainReport, _ style: TextStyle = .plain) -> String {
        var lines: [String] = []
        if let process = report.process { lines.append(style.head("Process \(process.id) (\(process.name))")) }
        if let note = report.note { lines.append(note) }
        if report.conversations.count == 1 {
            lines += full(report.conversations[0], style)
        } else if !report.conversations.isEmpty {
            lines += table(report.conversations, style)
        }
        if !report.waiting.isEmpty { lines += waiting(report, style) }
        return style.page(lines)
    }

    // MARK: One

    private static func full(_ conversation: ExplainReport.Conversation, _ style: TextStyle) -> [String] {
        let traffic = conversation.traffic
        var facts = [(traffic.way.rawValue, traffic.text)]
        if let path = path(traffic.peer) { facts.append(("path", path)) }
        facts.append(("survives", survival(traffic, style)))
        if let remedy = traffic.remedy { facts.append(("remedy", remedy)) }
        let width = facts.map(\.0.count).max() ?? 0
        return [style.head(head(conversation))] + facts.map { "  \($0.0)\(String(repeating: " ", count: width - $0.0.count))  \($0.1)" }
    }

    private static func head(_ conversation: ExplainReport.Conversation) -> String {
        if let socket = conversation.socket { return "\(socket.local) <-> \(socket.remote ?? "*") (\(socket.transport.rawValue), \(socket.state))" }
        return (conversation.traffic.local.map { "\($0) <-> " } ?? "") + conversation.traffic.remote
    }

    private static func path(_ peer: PeerReport?) -> String? {
        guard let peer, let locator = peer.locator else { return nil }
        let place = locator == peer.home ? "its home address" : locator
        let from = peer.ownLocator.map { " from \($0)\(peer.interface.map { " (\($0))" } ?? "")" } ?? ""
        switch peer.path {
        case .relayed?: return "relayed by \(place)\(from)"
        case .encapsulated?: return "encapsulated to \(place)\(from)"
        case .direct?, nil: return "direct to \(place)\(from)"
        }
    }

    private static func survival(_ traffic: TrafficReport, _ style: TextStyle) -> String {
        switch traffic.survives {
        case .yes:
            switch traffic.way {
            case .local: "yes: it never leaves this host"
            case .gateway: style.good("yes") + ": it goes on when this host moves"
            default: style.good("yes") + ": it goes on when either end moves"
            }
        case .perhaps: style.bad("perhaps not") + (traffic.survivalReason.map { ": \($0)" } ?? "")
        case .no:
            style.bad("no")
                + (traffic.cause == .ownAddress
                    ? ": it ends when this host loses \(traffic.local ?? "that address")"
                    : traffic.cause == .link ? ": it ends with that link" : ": it ends when this host leaves its network")
        case .unknown: "not known yet"
        }
    }

    // MARK: Several

    private static func table(_ conversations: [ExplainReport.Conversation], _ style: TextStyle) -> [String] {
        var table = TextTable([
            ("", .left), ("LOCAL", .left), ("REMOTE", .left), ("STATE", .left), ("IS", .left), ("PATH", .left), ("SURVIVES", .left),
        ])
        table.spills = [1, 2]
        table.spillsTogether = true
        for each in conversations {
            table.add([
                each.socket?.transport.rawValue ?? "", each.socket?.local ?? each.traffic.local ?? "", each.socket?.remote ?? each.traffic.remote,
                each.socket?.state ?? "", each.traffic.way.rawValue, each.traffic.peer?.path?.rawValue ?? "",
                each.traffic.survives == .perhaps ? "perhaps not" : each.traffic.survives.rawValue,
            ])
        }
        // Those that are well need no reason.
        var reasons: [String] = []
        for each in conversations where each.traffic.survives != .yes {
            let why = "\(each.traffic.remote): \(each.traffic.text)\(each.traffic.survivalReason.map { "; \($0)" } ?? "")"
            if !reasons.contains(why) { reasons.append(why) }
        }
        var remedies: [String] = []
        for remedy in conversations.compactMap(\.traffic.remedy) where !remedies.contains(remedy) { remedies.append(remedy) }
        return table.lines(style) + reasons + remedies.map { "remedy: \($0)" }
    }

    private static func waiting(_ report: ExplainReport, _ style: TextStyle) -> [String] {
        var table = TextTable([("", .left), ("WAITS AT", .left), ("WHAT COMES IS", .left)])
        for each in report.waiting {
            let what =
                switch each.reach {
                case .homes: "mapped"
                case .all:
                    report.homes.isEmpty ? "plain: this node has no home address" : "mapped to \(report.homes.joined(separator: " or ")), else plain"
                case .plain: "plain: that is no home address"
                case .thisHost: "of this host"
                }
            table.add([each.socket.transport.rawValue, each.socket.local, what])
        }
        return table.lines(style)
    }
}
