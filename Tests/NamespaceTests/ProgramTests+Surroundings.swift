import Foundation
import Testing

// `mat run` where others have a hand in processes and control groups: set-user-ID programs, a host with both versions of control groups, systemd.
extension ProgramTests {
    private static let user = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    /// What the unit gives matd, without systemd.
    private static let four = "setpriv --bounding-set=-all,+net_admin,+net_raw,+bpf,+perfmon --inh-caps=-all --groups 65534"

    /// Connections that cn has from each of the node's first home addresses.
    private func connections(_ lab: Lab) throws -> [Int] {
        let seen = try lab.on("cn", "ss", "-Htn", "state", "established", "sport = :\(Self.port)").text
        return Self.first.map { address in
            seen.split(separator: "\n").filter { $0.contains("\(address)]:") || $0.contains("\(address):") }.count
        }
    }

    private func startAgain(_ lab: Lab) throws {
        try lab.lab("start", "mn")
        try lab.wait("mn is registered again") { try lab.status("mn")["registered"] as? Bool == true }
    }

    @Test("What sudo and su start, of root and of a user, has the home address, and lives through a handover")
    func otherUsers() throws {
        let lab = try Lab.shared
        try prepare(lab)
        let sudoers = "/run/\(lab.name)/sudoers"
        try "root, nobody ALL=(ALL) NOPASSWD: ALL\n".write(toFile: sudoers, atomically: true, encoding: .utf8)
        _ = try lab.shell("mn", "chmod a+x /run/\(lab.name) \(directory(lab)); chmod 440 \(sudoers)")
        // Without the host's D-Bus, by which PAM could have a session made, with a control group of its own, for what su starts.
        let alone = "mount --make-rprivate / && mount --bind \(sudoers) /etc/sudoers && { [ ! -d /run/dbus ] || mount -t tmpfs none /run/dbus; }"
        let mat = "mat run --control \(lab.control("mn"))"
        func words(_ family: Int) -> String { talk(lab, Self.cn[family]).joined(separator: " ") }
        let programs = try [
            ("a user's sudo", "\(Self.user) \(mat) sudo -n \(words(0))"),
            ("root's sudo", "\(mat) sudo -n -u nobody \(words(1))"),
            ("root's su", "\(mat) su -s /bin/sh nobody -c '\(words(0))'"),
            ("a user's sudo of mat run", "\(Self.user) sudo -n env PATH=$PATH \(mat) \(words(1))"),
        ].map { name, line in
            (name, try lab.start("mn", "unshare", arguments: ["--mount", "/bin/bash", "-c", "\(alone) && exec \(line)"]))
        }
        try goOn(lab, programs)
        #expect(try connections(lab) == [4, 4])
        let report = try lab.on("mn", "mat", "ps", "--control", lab.control("mn")).text
        let users = report.split(separator: "\n").filter { $0.contains(program(lab)) }.map { $0.split(separator: " ").dropFirst().first }
        #expect(users.contains("0") && users.contains("65534"), "\(report)")
        let used = try #require(lab.peers("mn").compactMap { $0["interface"] as? String }.first)
        let next = used == "wlan0" ? "wwan0" : "wlan0"
        let output = try lab.on("mn", "mat", "handover", next, "--control", lab.control("mn"))
        #expect(output.status == 0, "\(output.text)")
        try lab.wait("the peers follow to \(next)") { try lab.peers("mn").allSatisfy { $0["interface"] as? String == next } }
        try goOn(lab, programs)
        try end(lab, programs.map(\.1))
        try nothingLeft(lab)
    }

    @Test("Source NAT, for which the kernel tracks all connections, is there while programs need it to talk to plain hosts, and goes with them")
    func sourceTranslation() throws {
        let lab = try Lab.shared
        try prepare(lab)
        func isThere() throws -> Bool { try lab.shell("mn", "nft list ruleset").text.contains("type nat hook") }
        // What the lab's start with `traffic: everything` may have left.
        try lab.wait("there is no source NAT") { try !isThere() }
        let programs = try Self.plainHost.map { ("\($0)", try run(lab, talk(lab, $0))) }
        try goOn(lab, programs)
        #expect(try isThere())
        try end(lab, programs.map(\.1))
        try nothingLeft(lab)
        try lab.wait("source NAT is gone") { try !isThere() }
        let again = try run(lab, talk(lab, Self.plainHost[0]))
        try goOn(lab, [("once more", again)])
        try end(lab, [again])
        try nothingLeft(lab)
    }

    @Test("Where control groups of version 2 are mounted beside version 1, programs stay in their groups of version 1 and have the home address")
    func bothVersions() throws {
        let lab = try Lab.shared
        try prepare(lab)
        try lab.lab("stop", "mn")
        let groups = "/sys/fs/cgroup"
        let mounts =
            "mount -t tmpfs none \(groups) && mkdir \(groups)/systemd \(groups)/unified && mount -t cgroup2 none \(groups)/unified"
            + " && mount -t cgroup -o none,name=systemd none \(groups)/systemd"
        // Without CAP_SYS_ADMIN it can't help itself to a mount of its own: it has to find this one.
        let agent = try lab.start("mn", "/bin/bash", "-c", "\(mounts) && exec \(Self.four) matd --config \(directory(lab))/matd.yaml")
        try lab.wait("matd is registered\n\(agent.text.suffix(500))") { (try? lab.status("mn")["registered"] as? Bool) == true }
        let session = "both-\(lab.name)"
        let enter = "for v in systemd unified; do mkdir -p \(groups)/$v/\(session) && echo $$ >\(groups)/$v/\(session)/cgroup.procs; done"
        let line =
            "\(mounts) && \(enter) && exec \(Self.user) mat run --control \(lab.control("mn")) /bin/sh -c "
            + "'grep systemd /proc/self/cgroup; grep ^0:: /proc/self/cgroup; exec \(talk(lab, Self.cn[0]).joined(separator: " "))'"
        _ = try lab.shell("mn", "chmod a+x /run/\(lab.name) \(directory(lab))")
        let program = try lab.start("mn", "/bin/bash", "-c", line)
        try goOn(lab, [("the program", program)])
        #expect(program.text.contains(":name=systemd:/\(session)\n") && program.text.contains("0::/\(session)/mat-"), "\(program.text.prefix(500))")
        #expect(try connections(lab) == [2, 0])
        try end(lab, [program])
        try nothingLeft(lab)
        agent.terminate()
        _ = try agent.wait(seconds: 10)
        let left = try lab.shell("mn", "\(mounts); rmdir \(groups)/*/\(session)")
        #expect(left.status == 0, "\(left.text)")
        try startAgain(lab)
    }

    // MARK: systemd

    /// A system of systemd's own in mn's network namespace, with the shipped unit of matd, a login manager, and none of the host's units.
    private func boot(_ lab: Lab) throws -> Background {
        let run = "/run/\(lab.name)"
        let units = "\(run)/units"
        let unit = URL(fileURLWithPath: lab.script).deletingLastPathComponent().appendingPathComponent("systemd/matd.service").path
        try FileManager.default.createDirectory(atPath: "\(units)/matd.service.d", withIntermediateDirectories: true)
        try String(contentsOfFile: unit, encoding: .utf8)
            .replacingOccurrences(of: "/usr/sbin/matd", with: "\(run)/built/matd")
            .replacingOccurrences(of: "/etc/matd/matd.yaml", with: "\(directory(lab))/matd.yaml")
            .write(toFile: "\(units)/matd.service", atomically: true, encoding: .utf8)
        let plain = "[Unit]\nDefaultDependencies=no\n"
        // As matd.yaml says of the control socket's group; and where the lab's agents have their files.
        let here = "[Service]\nSupplementaryGroups=nogroup\nReadWritePaths=\(run)\nStandardError=append:\(run)/unit.log\n"
        var files = ["matd.service.d/here.conf": plain + here]
        for name in ["sysinit", "basic", "sockets", "shutdown", "test"] { files["\(name).target"] = plain }
        // Users' own managers are nobody's concern here.
        for name in ["user@", "user-runtime-dir@"] {
            files["\(name).service"] = plain + "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/mkdir -p /run/user/%i\n"
        }
        for name in ["dbus.service", "dbus.socket", "systemd-logind.service"] {
            files[name] = try String(contentsOfFile: "/lib/systemd/system/\(name)", encoding: .utf8) + "\n" + plain
        }
        // One that everything is allowed; one whose control group is its user's.
        let mat = "\(run)/built/mat run --control \(lab.control("mn")) /bin/sh -c 'tail -n 1 /proc/self/cgroup; exec "
        for (index, (name, more)) in [("program", "MemoryMax=1G\n"), ("delegated", "User=nobody\nGroup=nogroup\nDelegate=yes\n")].enumerated() {
            let words = talk(lab, Self.cn[index]).joined(separator: " ")
            files["\(name).service"] = plain + "[Service]\n\(more)ExecStart=\(mat)\(words)'\nStandardOutput=file:\(run)/\(name).out\n"
        }
        for (name, text) in files { try text.write(toFile: "\(units)/\(name)", atomically: true, encoding: .utf8) }

        // The lab's directory is all that is left of /run, and no path but ours has units.
        try """
        set -e
        umount /sys/fs/cgroup
        mount -t cgroup2 none /sys/fs/cgroup
        mount -t bpf none /sys/fs/bpf
        mkdir -p \(run)/built \(run)/outside
        mount --bind \(lab.binaries) \(run)/built
        mount -t tmpfs none \(run)/outside
        mkdir -p \(run)/outside/\(lab.name) \(run)/outside/systemd/system \(run)/outside/lock
        mount --rbind \(run) \(run)/outside/\(lab.name)
        mount --rbind \(run)/outside /run
        cp -r \(units)/. /run/systemd/system
        export SYSTEMD_UNIT_PATH=/run/systemd/system SYSTEMD_GENERATOR_PATH=/nowhere SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nowhere
        exec env container=test SYSTEMD_LOG_TARGET=console /lib/systemd/systemd --system --unit=test.target --show-status=no </dev/null
        """.write(toFile: "\(run)/init", atomically: true, encoding: .utf8)
        try """
        mount --make-rprivate /
        mount -t cgroup2 none /sys/fs/cgroup
        group=/sys/fs/cgroup/systemd-\(lab.name)
        mkdir -p $group
        namespaces="--mount --pid --cgroup --ipc --uts --mount-proc"
        sh -c "echo \\$\\$ >$group/cgroup.procs; exec unshare $namespaces --fork --kill-child /bin/bash \(run)/init" &
        child=$!
        trap 'kill -KILL $child' TERM
        until pgrep -P $child -x systemd >\(run)/systemd.pid || ! kill -0 $child; do sleep 0.05; done
        wait $child
        for try in $(seq 50); do find $group -depth -type d -exec rmdir {} + && break; sleep 0.1; done
        """.write(toFile: "\(run)/boot", atomically: true, encoding: .utf8)
        return try lab.start("mn", "/bin/bash", "\(run)/boot")
    }

    @Test(
        "As units of systemd, and in login sessions, agent and programs do what they do elsewhere: groups are below the unit's or session's, a crash changes nothing, a stop ends it all",
        .enabled(if: FileManager.default.fileExists(atPath: "/lib/systemd/system/systemd-logind.service"), "systemd is not installed"))
    func systemd() throws {
        let lab = try Lab.shared
        try prepare(lab)
        let run = "/run/\(lab.name)"
        _ = try lab.shell("mn", "chmod a+x \(run) \(directory(lab))")
        try lab.lab("stop", "mn")
        let system = try boot(lab)
        func within(_ line: String) throws -> Lab.Output {
            let enter = "nsenter -t $(cat \(run)/systemd.pid) --mount --pid --cgroup --ipc --uts"
            try line.write(toFile: "\(run)/line", atomically: true, encoding: .utf8)
            return try lab.shell("mn", "\(enter) env PATH=\(run)/built:/usr/sbin:/usr/bin:/sbin:/bin /bin/bash \(run)/line")
        }
        func output(_ name: String) -> String { (try? String(contentsOfFile: "\(run)/\(name).out", encoding: .utf8)) ?? "" }
        func log() -> String { (try? String(contentsOfFile: "\(run)/unit.log", encoding: .utf8))?.suffix(2000).description ?? "" }
        func goesOn(_ name: String) throws {
            let before = output(name).count
            try lab.wait("\(name) goes on: \(output(name).suffix(300))\n\(log())") { output(name).count > before + 20 }
        }
        func isRegistered() -> Bool { (try? lab.status("mn")["registered"] as? Bool) == true }
        try lab.wait("systemd is there: \(system.text)") { try within("systemctl is-active test.target").text == "active\n" }

        let started = try within("systemctl start matd dbus.socket systemd-logind && systemctl start program delegated")
        #expect(started.status == 0, "\(started.text)\n\(log())")
        for name in ["program", "delegated"] { try goesOn(name) }
        #expect(try connections(lab) == [2, 2])
        #expect(output("program").hasPrefix("0::/system.slice/program.service/mat-"), "\(output("program").prefix(200))")
        // Its user could do with that group whatever he likes.
        #expect(output("delegated").hasPrefix("0::/system.slice/mat-"), "\(output("delegated").prefix(200))")

        // Login sessions, as PAM has them made.
        let mat = "mat run --control \(lab.control("mn"))"
        let place = "tail -n 1 /proc/self/cgroup"
        let others = "su -s /bin/sh nobody -c '\(place)'; sudo -i \(place)"
        try others.write(toFile: "\(run)/others", atomically: true, encoding: .utf8)
        let login = try within("su -s /bin/sh nobody -c '\(mat) \(place)'; su -c '\(mat) sh \(run)/others'")
        let places = login.text.split(separator: "\n").filter { $0.hasPrefix("0::") }
        let session = /^0::\/user\.slice\/user-\d+\.slice\/session-c\d+\.scope\/mat-/
        #expect(places.count == 3 && places.allSatisfy { $0.contains(session) }, "\(login.text)")

        // Killed: the manager starts it again, and it finds its programs.
        let killed = try within("systemctl kill -s KILL matd; sleep 0.5; systemctl is-active program delegated")
        #expect(killed.text == "active\nactive\n", "\(killed.text)")
        try lab.wait("matd is registered again: \(log())") { isRegistered() }
        for name in ["program", "delegated"] { try goesOn(name) }
        let ps = try within("mat ps --control \(lab.control("mn"))")
        #expect(ps.text.split(separator: "\n").filter { $0.contains("\(program(lab)) ") }.count == 2, "\(ps.text)")

        // One of two ends with its unit, the other stays; then the agent ends for good, and what is left is an ordinary program.
        #expect(try within("systemctl stop program").status == 0)
        try lab.wait("one group is left") { try groups(lab).split(separator: "\n").count == 1 }
        try goesOn("delegated")
        #expect(try within("systemctl stop matd; systemctl is-active delegated").text == "active\n")
        #expect(try groups(lab).isEmpty && !rules(lab).contains("fwmark 0x6288"), "\(log())")
        system.terminate()
        _ = try system.wait(seconds: 10)
        try startAgain(lab)
    }
}
