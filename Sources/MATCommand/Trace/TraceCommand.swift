import ArgumentParser
import Glibc
import MATControl
import MATRuntime
import MATSignal

struct TraceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trace", abstract: "Follow a packet to a home address, step by step, and say where it stops and why.",
        discussion: """
            DNS and mapping server are asked as `mat lookup` asks them; matd says what it knows and what its entries in the kernel are, the kernel \
            where its routes lead; and echo requests go to the address as a program's would. If nothing comes back, the routers on the way are asked \
            who passes packets on. Run it as root. Exit status: 0 nothing stops packets, 1 they stop.
            """)

    @Argument(help: "The home address.", transform: reading(.homeAddress))
    var hoa: HomeAddress

    @Option(
        help: ArgumentHelp("Ask this DNS server instead of those that matd asks; may be repeated.", valueName: "address"),
        transform: reading(.endpoint(defaultPort: 53)))
    var resolver: [Endpoint] = []

    @OptionGroup var control: NodeControl
    @OptionGroup var output: OutputOptions

    func run() throws {
        let findings = try findings()
        let report = findings.report
        try output.print(report) { TraceText.text(report, $0) }
        if report.stopsAt != nil { throw ExitCode(ExitStatus.failed.rawValue) }
        // Nothing was seen that stops them, of a part of the way.
        if case .failure(let failure) = findings.node { throw ExitCode(failure.status.rawValue) }
    }

    private func findings() throws(CommandFailure) -> TraceFindings {
        let node = node()
        let dns = DNSChoice(named: resolver)
        guard case .success = node else { return TraceFindings(lookup: try LookupWalk.run(hoa, by: dns), node: node) }
        // First, since matd finds out about somebody new by the first packet to him, and he may say more about where he is for it.
        let before = try packetsIn()
        let echo = TraceProbes.echo(hoa.address)
        var findings = TraceFindings(lookup: try LookupWalk.run(hoa, by: dns), node: node)
        findings.echo = echo
        var traced = try control.request(.trace, TraceRequest(peer: "\(hoa)"), as: NodeTraceReport.self)
        findings.traced = traced
        // A record that was replaced between the two questions is no doubt: both are asked again.
        if findings.report.steps.contains(where: { $0.stage == .cache && $0.outcome == .doubt }) {
            usleep(300_000)
            findings.lookup = try LookupWalk.run(hoa, by: dns)
            traced = try control.request(.trace, TraceRequest(peer: "\(hoa)"), as: NodeTraceReport.self)
            findings.traced = traced
        }
        findings.packetsCame = (traced.traffic.peer?.packetsIn ?? 0) &- min(before, traced.traffic.peer?.packetsIn ?? 0)
        if case .silent? = findings.echo, traced.traffic.way == .mapped, let leaving = traced.leaving, let target = IPAddress(leaving.to) {
            findings.hops = TraceProbes.hops(to: target, from: leaving.from.flatMap { IPAddress($0) })
        }
        return findings
    }

    private func node() -> Result<NodeReport, CommandFailure> {
        do throws(CommandFailure) {
            return .success(try control.request(.status, as: NodeReport.self))
        } catch {
            return .failure(error)
        }
    }

    private func packetsIn() throws(CommandFailure) -> UInt64 {
        let before = try control.request(.trace, TraceRequest(peer: "\(hoa)"), as: NodeTraceReport.self)
        return before.traffic.peer?.packetsIn ?? 0
    }
}
