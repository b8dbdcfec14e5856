import Glibc
import MATLab
import MATProbe
import Namespaces

/// A node that changes between two networks again and again, without anybody who helps, under an ssh session and a stream of 50 packets a second.
///
/// ```
///   mn ---- home ----+                       without overlap: the one goes, then the other comes, and again;
///    +----- carrier -+---- home2 ---- mn2    with it: the other comes, traffic goes there, then the one goes, and nothing may be lost
///                                            sshd; two translators between them at any time
/// ```
public struct Switches {
    public struct Report: Codable, Sendable {
        public var switches = 0
        /// Longest time without an arrival in either direction, DHCP and the time without any network included.
        public var longestGapMilliseconds = 0.0
        /// From a new address until both directions go on.
        public var medianMilliseconds = 0.0
        public var longestMilliseconds = 0.0
        public var sent = 0
        public var lost = 0
        /// Lines that the ssh session brought, and how it ended, if it did.
        public var lines = 0
        public var problems: [String] = []
    }

    private static let interval: Int64 = 20_000_000
    private static let pauseSeconds = 1.0
    private static let resumptionSeconds = 30.0
    /// For so long a path may be relayed where a better one works.
    private static let relayedSecondsMax = 60.0
    private static let port: UInt16 = 7650
    private static let sshPort = 2222

    private let lab: Lab
    private let run: PatternRun
    private let withOverlap: Bool
    private let walk = Walk("switches", "", Walk.Ending("mn", "192.0.2.10"), Walk.Ending("mn2", "192.0.2.11"), [])

    public init(lab: Lab, withOverlap: Bool = false) {
        self.lab = lab
        self.withOverlap = withOverlap
        run = PatternRun(lab: lab, withOverlap: withOverlap)
    }

    public func run(count: Int, say: (String) -> Void) throws -> Report {
        try run.takeToStart([Pattern.Place("mn", "home"), Pattern.Place("mn2", "home2")], walk)
        for end in [walk.near, walk.far] { try run.awaitRegistration(end) }
        let conversation = try Conversation(lab, walk.near, walk.far, port: Self.port, interval: Self.interval)
        let session = try SecureShell(lab, from: walk.near.host, to: walk.far, port: Self.sshPort)
        defer { session.end() }
        var report = Report()
        var times: [Double] = []
        var relayedSince: Double?
        let began = ProbeClock.now()
        for number in 1...max(1, count) {
            guard let since = try run.carryOut(.move([Pattern.Place("mn", number % 2 == 1 ? "carrier" : "home")]), walk) else {
                report.problems.append("switch \(number): no address came")
                break
            }
            guard let took = try resumption(conversation, since) else {
                report.problems.append("switch \(number): nothing goes on within \(Int(Self.resumptionSeconds)) s")
                break
            }
            times.append(took)
            report.switches = number
            say("switch \(number): goes on after \(Int(took)) ms")
            usleep(useconds_t(Self.pauseSeconds * 1e6))
            if try run.paths(walk).contains("relayed") {
                relayedSince = relayedSince ?? monotonicSeconds()
                if let begun = relayedSince, monotonicSeconds() - begun > Self.relayedSecondsMax {
                    report.problems.append("switch \(number): still relayed after \(Int(Self.relayedSecondsMax)) s")
                }
            } else {
                relayedSince = nil
            }
            guard conversation.ends.isEmpty, session.isRunning else { break }
        }
        let end = ProbeClock.now()
        // The last ones may be under way.
        usleep(useconds_t(2000 * PatternRun.roundTripMilliseconds))
        if !session.goesOn(within: Self.resumptionSeconds) { report.problems.append("the ssh session says nothing any more") }
        report.problems += conversation.ends
        let rest = conversation.end()
        if rest.missing > 0 || rest.isDamaged { report.problems.append("\(rest.missing) octets of the TCP connection are missing or damaged") }
        let flows = conversation.flows
        report.longestGapMilliseconds = Double(max(flows.toFar.longestGap(from: began, to: end), flows.toNear.longestGap(from: began, to: end))) / 1e6
        report.sent = flows.toFar.count(from: began, to: end) + flows.toNear.count(from: began, to: end)
        report.lost = flows.toFar.lost(from: began, to: end) + flows.toNear.lost(from: began, to: end)
        if withOverlap, report.lost > 0 { report.problems.append("\(report.lost) packets were lost in spite of the overlap") }
        report.lines = session.lines
        if !session.isRunning { report.problems.append("the ssh session ended: \(session.text.suffix(300))") }
        times.sort()
        (report.medianMilliseconds, report.longestMilliseconds) = (times.isEmpty ? 0 : times[times.count / 2], times.last ?? 0)
        return report
    }

    private func resumption(_ conversation: Conversation, _ since: Int64) throws -> Double? {
        let deadline = monotonicSeconds() + Self.resumptionSeconds
        while monotonicSeconds() < deadline {
            let flows = conversation.flows
            if let there = flows.toFar.resumption(after: since), let back = flows.toNear.resumption(after: since) {
                return Double(max(there, back) - since) / 1e6
            }
            usleep(5_000)
        }
        return nil
    }
}

/// A session of ssh that brings a line ten times a second, and its server.
private final class SecureShell {
    private let server: Child
    private let client: Child
    private let directory: String
    private var output: String { "\(directory)/session" }

    init(_ lab: Lab, from host: String, to peer: Walk.Ending, port: Int) throws {
        for program in ["/usr/sbin/sshd", "/usr/bin/ssh"] where access(program, X_OK) != 0 {
            throw LabError("\(program) is missing; deploy/install-packages installs what the lab needs")
        }
        directory = "\(lab.directory(host))/ssh"
        for key in ["host", "user"] {
            let made = shellStatus("mkdir -p \(directory) /run/sshd && ssh-keygen -q -t ed25519 -N '' -f \(directory)/\(key) </dev/null")
            guard made.status == 0 else { throw LabError("ssh-keygen: \(made.output)") }
        }
        let options = ["PidFile=none", "StrictModes=no", "UsePAM=no", "PermitRootLogin=yes", "AuthorizedKeysFile=\(directory)/user.pub"]
        server = try Child(
            lab.command(
                on: peer.host,
                ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "\(port)", "-h", "\(directory)/host"] + options.flatMap { ["-o", $0] }),
            output: .file("\(directory)/sshd.log"))
        usleep(500_000)
        let accepts = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "TCPKeepAlive=no", "ConnectTimeout=20"]
        client = try Child(
            lab.command(
                on: host,
                ["ssh", "-F", "/dev/null", "-i", "\(directory)/user", "-p", "\(port)"] + accepts.flatMap { ["-o", $0] }
                    + ["root@\(peer.address)", "while sleep 0.1; do echo line; done"]), output: .file("\(directory)/session"))
        guard goesOn(within: 20) else { throw LabError("the ssh session did not begin: \(text.suffix(500))") }
    }

    var text: String { (try? runCommand(["cat", output]))?.output ?? "" }
    var lines: Int { text.split(separator: "\n").count { $0 == "line" } }
    var isRunning: Bool { client.isRunning }

    func goesOn(within seconds: Double) -> Bool {
        let before = lines
        let deadline = monotonicSeconds() + seconds
        while monotonicSeconds() < deadline, client.isRunning {
            if lines > before { return true }
            usleep(50_000)
        }
        return false
    }

    func end() {
        client.end(SIGTERM)
        server.end(SIGTERM)
    }
}
