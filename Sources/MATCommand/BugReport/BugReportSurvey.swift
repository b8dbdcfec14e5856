import Foundation
import Glibc
import MATControl
import MATRuntime
import MATSignal

/// Gathers what an engineer asks for: of the host, its daemons and what they say. Changes nothing.
struct BugReportSurvey {
    /// Of each program that is asked, in seconds.
    private static let timeMax = 10
    private static let peersMax = 50
    private static let logLines = 1000

    private let files: DaemonFiles
    private(set) var report: BugReport

    init(_ files: DaemonFiles) {
        self.files = files
        var contents: [String] = []
        for path in files.configurations {
            for secret in Secrets.files(namedIn: (try? TextFile.read(path)) ?? "") {
                if let text = try? TextFile.read(secret) { contents.append(text) }
            }
        }
        report = BugReport(Secrets(contents: contents))
    }

    mutating func look(logs: [String]) {
        host()
        doctor()
        for path in files.configurations where DoctorSurvey.exists(path) { configuration(path) }
        if DoctorSurvey.exists(files.nodeConfig) || DoctorSurvey.exists(files.nodeControl) { node() }
        if DoctorSurvey.exists(files.imsConfig) || DoctorSurvey.exists(files.imsControl) { server() }
        kernel()
        journal()
        for log in logs { run("the end of \(log)", ["tail", "-n", "\(Self.logLines)", log]) }
    }

    // MARK: The host

    private mutating func host() {
        var facts = ["mat \(MATVersion.text)"]
        for daemon in ["matd", "imsd", "mat-relay"] {
            guard let program = DoctorSurvey.program(daemon) else { continue }
            facts.append("\(program): \(ProgramOutput.of([program, "--version"], seconds: Self.timeMax).text.split(separator: "\n").first ?? "?")")
        }
        facts.append(ProgramOutput.of(["uname", "-srvm"], seconds: Self.timeMax).text)
        let release = (try? String(contentsOfFile: "/etc/os-release", encoding: .utf8)) ?? ""
        facts += release.split(separator: "\n").filter { $0.hasPrefix("PRETTY_NAME=") }.map(String.init)
        facts.append(geteuid() == 0 ? "run as root" : "not run as root: rules and keys of the kernel and other users' files are missing below")
        report.add("versions", facts.joined(separator: "\n"))
    }

    private mutating func doctor() {
        var survey = DoctorSurvey()
        let isNode = DoctorSurvey.exists(files.nodeConfig)
        survey.lookAtHost(isNode: isNode)
        if isNode { survey.lookAtNode(configuration: files.nodeConfig, control: files.nodeControl) }
        if DoctorSurvey.exists(files.imsConfig) { survey.lookAtServer(configuration: files.imsConfig, control: files.imsControl) }
        if DoctorSurvey.exists(files.relayConfig) { survey.lookAtRelay(configuration: files.relayConfig) }
        report.add("mat doctor", DoctorText.text(DoctorReport(findings: survey.findings)))
    }

    private mutating func configuration(_ path: String) {
        do throws(SystemError) {
            report.add(configuration: path, try TextFile.read(path))
        } catch {
            report.add(path, missing: "\(error)")
        }
        let directory = URL(fileURLWithPath: path).deletingLastPathComponent().path
        run("files in \(directory)", ["ls", "-ln", directory])
    }

    // MARK: Daemons

    private mutating func node() {
        guard let status = ask("mat status", .status, as: NodeReport.self) else { return }
        report.add("mat status, for people", StatusText.text(status))
        let peers = ask("mat peers", .peers, as: PeersReport.self)?.peers ?? []
        if let history = ask("mat history", .history, as: HistoryReport.self) { report.add("mat history, for people", HistoryText.text(history)) }
        var whys: [String] = []
        for peer in peers.prefix(Self.peersMax) {
            do throws(CommandFailure) {
                whys.append(WhyText.text(try NodeControl.request(.why, WhyRequest(peer: peer.home), as: WhyReport.self, at: files.nodeControl)))
            } catch {
                whys.append("\(peer.home): \(error)")
            }
        }
        if peers.count > Self.peersMax { whys.append("\(peers.count - Self.peersMax) more peers were not asked about") }
        if !whys.isEmpty { report.add("mat why", whys.joined(separator: "\n")) }
    }

    private mutating func ask<Report: Codable>(_ title: String, _ command: NodeCommand, as type: Report.Type) -> Report? {
        do throws(CommandFailure) {
            let answer = try NodeControl.request(command, as: type, at: files.nodeControl)
            addJSON("\(title) --json", answer)
            return answer
        } catch {
            report.add(title, missing: error.description)
            return nil
        }
    }

    private mutating func server() {
        do throws(CommandFailure) {
            addJSON("mat ims status --json", try IMSControl.request(.status, as: IMSStatusReport.self, at: files.imsControl))
            report.add("mat ims metrics", try IMSControl.request(.metrics, as: MetricsReport.self, at: files.imsControl).text)
        } catch {
            report.add("mat ims status", missing: error.description)
        }
    }

    private mutating func addJSON(_ title: String, _ value: some Encodable) {
        do throws(ControlError) {
            report.add(title, try ControlJSON.encodeIndented(value))
        } catch {
            report.add(title, missing: error.description)
        }
    }

    // MARK: The kernel

    private mutating func kernel() {
        run("addresses", ["ip", "address"])
        run("links", ["ip", "-s", "-d", "link"])
        for family in ["-4", "-6"] {
            run("rules, \(family)", ["ip", family, "rule"])
            run("routes, \(family)", ["ip", family, "route", "show", "table", "all"])
        }
        run("nftables, without elements", ["nft", "-t", "list", "ruleset"])
        run("table ip mat", ["nft", "list", "table", "ip", "mat"])
        run("table ip6 mat", ["nft", "list", "table", "ip6", "mat"])
        let ports = Self.ports(ims: files.imsConfig, relay: files.relayConfig)
        run("sockets of MAT's ports", ["ss", "-uanp", "( \(ports.map { "sport = \($0)" }.joined(separator: " or ")) )"])
        run(
            "settings",
            [
                "sh", "-c",
                "grep -H . /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding /proc/sys/net/netfilter/nf_conntrack_count /proc/sys/net/netfilter/nf_conntrack_max; cat /etc/resolv.conf; ls -l /dev/net/tun; head -3 /proc/meminfo; cat /proc/loadavg",
            ]
        )
    }

    /// Those of the protocol, and those that configurations name.
    static func ports(ims: String, relay: String) -> [UInt16] {
        let named = [ims, relay].compactMap { (try? ConfigurationFile.read(path: $0))?.section("listen").value("port", .port) }
        return Set([SignalPort.ims, SignalPort.node, SignalPort.relay] + named).sorted()
    }

    private mutating func journal() {
        let title = "the journal's last \(Self.logLines) lines of matd, imsd and mat-relay"
        guard DoctorSurvey.exists("/run/systemd/system") else { return report.add(title, missing: "no systemd here; --log adds a file") }
        run(title, ["journalctl", "-u", "matd", "-u", "imsd", "-u", "mat-relay", "-n", "\(Self.logLines)", "--no-pager", "-o", "short-iso-precise"])
    }

    // MARK: Programs

    private mutating func run(_ title: String, _ command: [String]) {
        let (text, failure) = ProgramOutput.of(command, seconds: Self.timeMax)
        let shown = command.first == "sh" ? title : "\(title): \(command.joined(separator: " "))"
        if let failure { report.add(shown, missing: failure) } else { report.add(shown, text) }
    }
}
