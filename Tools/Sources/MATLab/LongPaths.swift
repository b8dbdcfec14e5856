import Namespaces

/// All paths longer by a time: the router takes everything that it forwards through a `Distance`, once.
///
/// ```
///   home ----+                                      +---- cn        what comes in, and is not the router's own, goes to table 200: far0
///   wlan ----+-- table 200 --> far0 == mat-lab -->--+               what comes out of far0 goes where it would have gone: table main
///   infra ---+                 far0 <-- distance    +---- plain
/// ```
///
/// What stays within one network does not pass the router, and takes no longer.
public struct LongPaths {
    private static let device = "far0"
    private static let table = 200
    /// Before the main table's rule; the router's own addresses come first of all.
    private static let priorities = (arrived: 100, own: 101, all: 102)
    private static let label = "distance"

    private let lab: Lab
    private var router: String { lab.topology.router }
    private var process: RecordedProcess { lab.process(router, Self.label) }

    public init(lab: Lab) { self.lab = lab }

    /// - Parameter milliseconds: each way.
    public func delay(milliseconds: Int) throws {
        guard lab.stands else { throw LabError("no lab \"\(lab.name)\" stands") }
        try undelay()
        let namespace = lab.namespace(router)
        do {
            try Namespace.ipBatch(["tuntap add dev \(Self.device) mode tun vnet_hdr", "link set dev \(Self.device) up"], in: namespace)
            try Namespace.set(["all", Self.device].reduce(into: [:]) { $0["net.ipv4.conf.\($1).rp_filter"] = "0" }, in: namespace)
            try lab.start(router, Self.label, [try lab.tool("mat-lab"), Self.label, Self.device, "\(milliseconds)"])
            try lab.wait("the paths are long", seconds: 5) {
                guard process.pid != nil else { throw LabError("`mat-lab distance` ended; see \(lab.directory(router))/\(Self.label).log") }
                return try Interface.named(Self.device, in: namespace).flags.contains("LOWER_UP")
            }
            for family in Self.families { try Namespace.ipBatch(rules("add"), in: namespace, family: family) }
        } catch {
            try undelay()
            throw error
        }
    }

    public func undelay() throws {
        let namespace = lab.namespace(router)
        // Rules first, so that nothing is on its way into an interface that goes.
        for family in Self.families {
            for line in rules("delete").reversed() {
                _ = try runCommand(["ip", family, "-n", namespace] + line.split(separator: " ").map(String.init))
            }
        }
        RecordedProcess.end([process])
        _ = try runCommand(["ip", "-n", namespace, "link", "delete", "dev", Self.device])
    }

    private static let families = ["-4", "-6"]

    private func rules(_ verb: String) -> [String] {
        [
            "route \(verb) default dev \(Self.device) table \(Self.table)",
            "rule \(verb) iif \(Self.device) lookup main priority \(Self.priorities.arrived)",
            "rule \(verb) iif lo lookup main priority \(Self.priorities.own)",
            "rule \(verb) lookup \(Self.table) priority \(Self.priorities.all)",
        ]
    }
}
