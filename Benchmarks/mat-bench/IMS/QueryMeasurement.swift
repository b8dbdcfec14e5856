import BenchSupport

/// Queries a second, closed loop, and the latency at half of that, open loop: of imsd, of the bare C responder, and of DNS servers that
/// answer as many names.
struct QueryMeasurement {
    private let host: IMSHost
    private let plan: IMSPlan

    init(_ host: IMSHost, _ plan: IMSPlan) {
        self.host = host
        self.plan = plan
    }

    private struct Case {
        var title: String
        var arguments: String
        var messages = 1
        var isDNS = true
    }

    private static let cases = [
        Case(title: "uniform", arguments: "--distribution uniform"),
        Case(title: "Zipf", arguments: "--distribution zipf"),
        Case(title: "uniform, 16 to a datagram", arguments: "--distribution uniform --messages 16 --window 64", messages: 16, isDNS: false),
        Case(title: "Zipf, 16 to a datagram", arguments: "--distribution zipf --messages 16 --window 64", messages: 16, isDNS: false),
    ]

    func run(withDNS: Bool, into figures: inout IMSFigures) throws {
        let (nodes, store) = try host.population(plan.mappings, signed: IMSPlan.signedMax)
        let ims = try RunningIMS(host, store: store, mappings: plan.mappings)
        defer { ims.end() }
        var servers = [
            AnsweringServer(name: "imsd", title: "imsd", port: 6288) {}, try host.bareResponder(port: 7001),
        ]
        defer { for server in servers { server.end() } }
        if withDNS {
            let zone = try host.zone(nodes, plan.mappings)
            servers.append(try host.nsd(zone: zone, port: 5301))
            servers.append(try host.knot(zone: zone, port: 5302))
        }
        for round in 0..<plan.runs {
            for item in Self.cases {
                let shift = round % servers.count
                for server in servers[shift...] + servers[..<shift] where item.isDNS || !server.isDNS {
                    let common =
                        "queries --population \(nodes) --port \(server.port) --seconds \(plan.seconds) \(item.arguments)\(server.isDNS ? " --dns" : "")"
                    guard let full = try host.load(common)["queries"] else { throw BenchError("no figures") }
                    figures.add("queries", "\(server.title), \(item.title)", full.perSecond, "1/s")
                    let half = max(100, full.perSecond / 2)
                    guard let calm = try host.load("\(common) --rate \(half)")["queries"] else { throw BenchError("no figures") }
                    figures.add("queries", "\(server.title), \(item.title), p99 at half load", calm.microseconds.p99, "us")
                    figures.add("queries", "\(server.title), \(item.title), p50 at half load", calm.microseconds.p50, "us")
                }
            }
        }
        for item in Self.cases {
            figures.compare("queries", "imsd, \(item.title)", to: "bare C responder, \(item.title)", as: "imsd / bare C, \(item.title)")
            figures.goal("queries", "imsd / bare C, \(item.title)", atLeast: 0.8)
            figures.goal("queries", "imsd, \(item.title), p99 at half load", atMost: 200)
            for server in servers where server.isDNS && item.isDNS {
                figures.compare("queries", "imsd, \(item.title)", to: "\(server.title), \(item.title)", as: "imsd / \(server.name), \(item.title)")
                figures.goal("queries", "imsd / \(server.name), \(item.title)", atLeast: 1)
            }
        }
    }
}
