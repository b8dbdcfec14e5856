import MATControl

/// `mat ps` and `mat attach` for people.
enum ProgramsText {
    static func text(_ report: SteerReport) -> String {
        "the next sockets of process \(report.process) start from \(start(report.via, report.homes))\n"
    }

    private static func start(_ via: SteerRequest.Via, _ homes: [String]) -> String {
        switch via {
        case .plain: "the network's own addresses"
        case .visited: homes.joined(separator: " and ") + " (visited)"
        case .home, .gateway: homes.joined(separator: " and ")
        }
    }

    static func text(_ report: ProgramsReport, _ style: TextStyle = .plain) -> String {
        guard !report.groups.isEmpty else { return "no programs; `mat run` starts one\n" }
        return style.page(Array(report.groups.map { lines($0, style) }.joined(separator: [""])))
    }

    private static func lines(_ group: ProgramsReport.Group, _ style: TextStyle) -> [String] {
        var lines = [style.head("from \(start(group.via, group.homes)):")]
        var programs = TextTable([("PID", .right), ("USER", .right), ("COMMAND", .left)])
        for program in group.programs { programs.add(["\(program.process)", "\(program.user)", program.command]) }
        if !programs.isEmpty { lines += programs.lines(indent: 2, style) }
        if group.furtherPrograms > 0 { lines.append("  and \(group.furtherPrograms) more programs") }
        var sockets = TextTable([("PID", .right), ("SOCKET", .left), ("STATE", .left), ("LOCAL", .left), ("PEER", .left), ("PATH", .left)])
        sockets.spills = [3, 4, 5]
        for socket in group.sockets {
            sockets.add([
                socket.process.map { "\($0)" } ?? "-", socket.kind, socket.state, socket.local, socket.remote ?? "-", path(socket),
            ])
        }
        if !sockets.isEmpty { lines += [""] + sockets.lines(indent: 2, style) }
        if group.furtherSockets > 0 { lines.append("  and \(group.furtherSockets) more sockets") }
        return lines
    }

    private static func path(_ socket: ProgramsReport.Socket) -> String {
        guard socket.remote != nil else { return "-" }
        guard let path = socket.path else { return socket.reason ?? "plain" }
        return socket.locator.map { "\(path.rawValue), \(path == .relayed ? "by" : "to") \($0)" } ?? path.rawValue
    }
}
