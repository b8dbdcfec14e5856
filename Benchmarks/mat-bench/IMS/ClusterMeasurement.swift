import BenchSupport
import Foundation
import Glibc
import Namespaces

/// Three instances over three members of etcd, all on this machine: updates through one instance, queries beside them, and what etcd's own
/// benchmark says of the same members. Members and idle instances share both cores with the load, which a real cluster would not.
struct ClusterMeasurement {
    private let host: IMSHost
    private let plan: IMSPlan
    private static let nodesMax = 20_000
    /// `etcdctl check perf` takes a minute.
    private static let secondsOfCheckMin = 1.0

    init(_ host: IMSHost, _ plan: IMSPlan) {
        self.host = host
        self.plan = plan
    }

    func run(into figures: inout IMSFigures) throws {
        let members = Processes()
        defer { members.end() }
        let count = 3
        func client(_ member: Int) -> String { "127.0.0.1:\(23_790 + member)" }
        func peer(_ member: Int) -> String { "http://127.0.0.1:\(23_890 + member)" }
        let all = (0..<count).map { "m\($0)=\(peer($0))" }.joined(separator: ",")
        for member in 0..<count {
            try members.start(
                "ip netns exec \(host.namespace.name) etcd --name m\(member) --data-dir \(host.directory)/etcd\(member) "
                    + "--listen-client-urls http://\(client(member)) --advertise-client-urls http://\(client(member)) "
                    + "--listen-peer-urls \(peer(member)) --initial-advertise-peer-urls \(peer(member)) --initial-cluster \(all) "
                    + "--initial-cluster-state new --logger zap --log-level error --heartbeat-interval 50 --election-timeout 500 --pre-vote")
        }
        let endpoints = (0..<count).map(client).joined(separator: ",")
        let patience = Ticks.wall() &+ 60_000_000_000
        while (try? etcdctl(endpoints, "endpoint health")) == nil {
            guard Ticks.wall() < patience else { throw BenchError("etcd does not start: \(try etcdctl(endpoints, "endpoint health"))") }
            usleep(100_000)
        }

        let nodesCount = min(Self.nodesMax, plan.mappings)
        let nodes = "\(host.directory)/cluster-nodes.json"
        try shell("\(host.programs)/mat-load population \(nodes) --count \(nodesCount) --key \(host.keyPath)", within: IMSHost.commandSecondsMax)
        var instances: [RunningIMS] = []
        defer { for instance in instances { instance.end() } }
        for number in 0..<count {
            let order = (0..<count).map { client(($0 + number) % count) }.joined(separator: ", ")
            instances.append(
                try RunningIMS(
                    host, store: "etcd\netcd: {endpoints: [\(order)]}", mappings: 0, port: UInt16(6288 + number * 100), name: "imsd-\(number)"))
        }
        // Registered one by one, as nodes do that come for the first time.
        guard
            let registered = try host.load(
                "updates --population \(nodes) --count \(nodesCount) --window 1024 --whole-certificate", key: true)["updates"]
        else { throw BenchError("no figures") }
        figures.add("cluster", "nodes registered", registered.ok, "")
        for round in 0..<plan.runs {
            let common = "updates --population \(nodes) --seconds \(plan.seconds)"
            guard let full = try host.load("\(common) --moved \(round * 8) --window 1024", key: true)["updates"],
                let calm = try host.load("\(common) --moved \(round * 8 + 4) --rate \(max(20, full.perSecond / 2))", key: true)["updates"],
                let queries = try host.load("queries --population \(nodes) --seconds \(plan.seconds)")["queries"]
            else { throw BenchError("no figures") }
            figures.add("cluster", "updates through one of three instances", full.perSecond, "1/s")
            figures.add("cluster", "updates: p50 at half load", calm.microseconds.p50 / 1000, "ms")
            figures.add("cluster", "updates: p99 at half load", calm.microseconds.p99 / 1000, "ms")
            figures.add("cluster", "queries to one of three instances", queries.perSecond, "1/s")
        }
        let mappings = try instances.map { Double(try $0.status()["mappings"]?.int ?? 0) }
        figures.add("cluster", "mappings that the instance with the fewest has", mappings.min() ?? 0, "")
        figures.goal("cluster", "mappings that the instance with the fewest has", atLeast: registered.ok)
        guard plan.seconds >= Self.secondsOfCheckMin else { return }
        // It says what it reached whether or not that is what it wanted.
        let text = (try? host.namespace.run("sh -c 'ETCDCTL_API=3 etcdctl --endpoints \(endpoints) check perf --load=xl; true'")) ?? ""
        if let rate = text.split(whereSeparator: \.isNewline).first(where: { $0.contains("hroughput") })?
            .split(whereSeparator: { !$0.isNumber && $0 != "." }).compactMap({ Double($0) }).first
        {
            figures.add("cluster", "etcdctl check perf (xl: puts of 1,000 clients)", rate, "1/s")
        }
    }

    private func etcdctl(_ endpoints: String, _ command: String) throws -> String {
        try host.namespace.run("env ETCDCTL_API=3 etcdctl --endpoints \(endpoints) \(command)")
    }
}
