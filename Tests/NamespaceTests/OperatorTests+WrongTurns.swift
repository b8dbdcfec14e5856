import Foundation
import MATSignal
import Testing

/// Wrong turns: each ends in a sentence that names the true cause, where an operator looks for it.
extension OperatorTests {
    private func doctor(_ lab: Lab, _ host: String) throws -> String {
        try lab.shell(
            host, "mat doctor --quiet --node --node-config /run/\(lab.name)/\(host)/matd.yaml --control \(lab.control(host)) 2>&1", seconds: 60
        ).text
    }

    private func write(_ text: String, _ path: String) throws {
        try text.write(toFile: path, atomically: false, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
    }

    @Test("matd --check and imsd --check name a certificate that has ended, swapped files, an unknown group, a state and a store that can't be used")
    func check() throws {
        let lab = try Lab.shared
        let (node, scratch) = ("/run/\(lab.name)/mn", "/run/\(lab.name)/mn/check")
        try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true)
        let key = try #require(KeyFile.parsePrivateKey(try String(contentsOfFile: "\(node)/node.key", encoding: .utf8)))
        let issuer = try #require(SigningKey(seed: [UInt8](repeating: 9, count: 32)))
        let home = try #require(HomeAddress("192.0.2.10"))
        let day: UInt64 = 86_400_000
        let now = UInt64(Date().timeIntervalSince1970 * 1000)
        for (name, begin, end) in [("good", now - day, now + day), ("ended", now - 31 * day, now - day), ("early", now + day, now + 2 * day)] {
            let certificate = try #require(
                Certificate(
                    issuing: home, nodeKey: key.publicKey, notBefore: begin, notAfter: end, with: issuer))
            try write(KeyFile.write(certificate), "\(scratch)/\(name).certificate")
        }
        try write("nonsense", "\(scratch)/file")
        func matd(key: String = "\(node)/node.key", certificate: String = "\(scratch)/good.certificate", state: String = scratch, more: String = "")
            throws
            -> Lab.Output
        {
            try write(
                "home-addresses:\n  - address: 192.0.2.10\n    key: \(key)\n    certificate: \(certificate)\nstate: \(state)\n\(more)\n",
                "\(scratch)/matd.yaml")
            return try lab.shell("mn", "matd --check --config \(scratch)/matd.yaml 2>&1")
        }
        let good = try matd()
        #expect(good.status == 0 && good.text.contains("is fine"), "\(good.text)")
        // Without a clock that somebody holds it is a doubt: at boot matd waits for the clock.
        let ended = try matd(certificate: "\(scratch)/ended.certificate")
        #expect(ended.text.contains("the certificate of 192.0.2.10 ended at") && ended.text.contains("mat enrol 192.0.2.10"), "\(ended.text)")
        #expect(try matd(certificate: "\(scratch)/early.certificate").text.contains("the certificate of 192.0.2.10 begins at"))
        for (output, words) in [
            (try matd(key: "\(scratch)/good.certificate", certificate: "\(node)/node.key"), "are `key` and `certificate` swapped in matd.yaml?"),
            (try matd(more: "control-group: nosuchgroup"), "control-group: there is no group nosuchgroup"),
            (try matd(state: "/proc/nope"), "state: make the state directory /proc/nope"),
            (try matd(state: "\(scratch)/file"), "state: use \(scratch)/file as the state directory: Not a directory"),
        ] { #expect(output.status == 78 && output.text.contains(words), "\(words): \(output.text)") }
        // A certificate that everybody may read, as they are, where the key belongs.
        #expect(chmod("\(scratch)/good.certificate", 0o644) == 0)
        #expect(try matd(key: "\(scratch)/good.certificate", certificate: "\(node)/node.key").text.contains("swapped"))

        func imsd(store: String, more: String = "") throws -> Lab.Output {
            try write(
                "store: \(store)\nsigning-key: /run/\(lab.name)/ims1/ims.key\nprefixes:\n  - prefix: 192.0.2.0/24\n\(more)\n", "\(scratch)/imsd.yaml")
            return try lab.shell("ims1", "imsd --check --config \(scratch)/imsd.yaml 2>&1")
        }
        #expect(try imsd(store: "\(scratch)/none.db").status == 0)
        for (output, words) in [
            (try imsd(store: "\(scratch)/file"), "store: \(scratch)/file is no store of imsd's"),
            (try imsd(store: scratch), "store: \(scratch) is a directory"),
            (try imsd(store: "\(scratch)/none.db", more: "control-group: nosuchgroup"), "control-group: there is no group nosuchgroup"),
        ] { #expect(output.status == 78 && output.text.contains(words), "\(words): \(output.text)") }
    }

    @Test("Two DHCP clients and one default route: status and doctor name the idle link, and what to do")
    func oneDefaultRoute() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        try lab.lab("attach", "mn", "cellular")
        defer { _ = try? lab.lab("detach", "mn", "cellular") }
        try lab.wait("the second DHCP client has its lease") { try lab.shell("mn", "ip route del default dev wwan0").status == 0 }
        try lab.wait("matd sees it") {
            try mat(lab, "mn", "status").text.contains("is not used: wwan0 has no IPv4 default route")
        }
        let text = try doctor(lab, "mn")
        #expect(text.contains("has no IPv4 default route, so nothing can leave over it") && text.contains("RouteMetric"), "\(text)")
    }

    @Test("A PTR that hides the wildcard, and a server that does not have the zone, are told from a zone without lines")
    func zones() throws {
        let lab = try Lab.shared
        func lookup(_ hoa: String) throws -> String { try lab.shell("mn", "mat lookup \(hoa) --resolver 203.0.113.130").text }
        let before = try lookup("192.0.2.177")
        #expect(before.contains("192.0.2.177 is not registered"), "\(before)")
        let zone = "/run/\(lab.name)/ns/zones/2.0.192.in-addr.arpa"
        let text = try String(contentsOfFile: zone, encoding: .utf8)
        func reload(_ text: String) throws {
            try text.write(toFile: zone, atomically: false, encoding: .utf8)
            #expect(try lab.shell("ns", "kill -HUP $(cut -d' ' -f1 /run/\(lab.name)/ns/nsd.pid)").status == 0)
        }
        defer { try? reload(text) }
        try reload(text + "177.2.0.192.in-addr.arpa. 300 PTR printer.mat.example.\n")
        try lab.wait("the name server has the PTR") { try lookup("192.0.2.177").contains("its reverse name exists (a PTR, or another record)") }
        #expect(try lookup("192.0.2.177").contains("mat zone --hoa 192.0.2.177"))
        let lame = try lookup("192.88.99.7")
        #expect(lame.contains("DNS gives no answer") && lame.lowercased().contains("refus") && lame.contains("dig +trace"), "\(lame)")
    }

    @Test("Without /dev/net/tun, and as another user, matd, mat and doctor say so and what helps")
    func permissions() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        let node = "/run/\(lab.name)/mn"
        let (scratch, config) = ("/run/\(lab.name)/plain", "/run/\(lab.name)/plain/matd.yaml")
        try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true)
        try write(
            try String(contentsOfFile: "\(node)/matd.yaml", encoding: .utf8).replacing("\(node)/control.sock", with: "\(scratch)/control.sock")
                .replacing("\(node)/state", with: "\(scratch)/state"), config)
        let bare = try lab.shell("plain", "unshare -m /bin/bash -c 'mount -t tmpfs none /dev/net; timeout 5 matd --config \(config)' 2>&1")
        #expect(bare.status == 1 && bare.text.contains("/dev/net/tun") && bare.text.contains("modprobe tun"), "\(bare.text)")
        #expect(!bare.text.contains("the running kernel lacks this feature"), "\(bare.text)")
        let survey = try lab.shell(
            "plain",
            "unshare -m /bin/bash -c 'mount -t tmpfs none /dev/net; mat doctor --node --node-config \(config) --control \(scratch)/control.sock' 2>&1"
        )
        #expect(survey.text.contains("there is no /dev/net/tun") && survey.text.contains("matd isn't running"), "\(survey.text)")

        let asNobody = "setpriv --reuid 65534 --regid 65534 --clear-groups"
        _ = try lab.shell("mn", "chmod a+rx \(node); chmod a+r \(node)/matd.yaml")
        let status = try lab.shell("mn", "\(asNobody) mat status --control \(lab.control("mn")) 2>&1")
        #expect(status.status == 2 && status.text.contains("permission denied") && status.text.contains("use sudo"), "\(status.text)")
        let check = try lab.shell("mn", "\(asNobody) matd --check --config \(node)/matd.yaml 2>&1")
        #expect(check.status == 78 && check.text.contains("run it as root") && !check.text.contains("mat keygen"), "\(check.text)")
    }

    @Test("A node without any network is told so first, in status and in doctor")
    func offline() throws {
        let lab = try Lab.shared
        try lab.lab("detach", "mn", "wlan")
        defer { _ = try? lab.lab("attach", "mn", "wlan") }
        try lab.wait("matd sees it") { try mat(lab, "mn", "status").text.contains("none: no interface has a usable address") }
        let lines = try doctor(lab, "mn").split(separator: "\n").map(String.init)
        let first = try #require(lines.first { $0.hasPrefix("problem") })
        #expect(first.contains("no interface has an address") || first.contains("no usable mobile address"), "\(lines)")
    }

    @Test("mat zone after a change of keys: added behind the old lines it is told, with --into it takes their place")
    func rotation() throws {
        let lab = try Lab.shared
        let zone = "/run/\(lab.name)/ns/zones/2.0.192.in-addr.arpa"
        let text = try String(contentsOfFile: zone, encoding: .utf8)
        func reload() throws { #expect(try lab.shell("ns", "kill -HUP $(cut -d' ' -f1 /run/\(lab.name)/ns/nsd.pid)").status == 0) }
        defer {
            try? text.write(toFile: zone, atomically: false, encoding: .utf8)
            try? reload()
        }
        func lines(seed: UInt8, _ more: String = "") throws -> Lab.Output {
            let key = KeyFile.write(try #require(SigningKey(seed: [UInt8](repeating: seed, count: 32))).publicKey)
            return try lab.shell(
                "ns",
                "mat zone --prefix 192.0.2.0/24 --key \(key) --target ims9.mat.example --address 203.0.113.139 --form ims --hoa 192.0.2.178 \(more) 2>&1"
            )
        }
        let (old, new) = (try lines(seed: 41).text, try lines(seed: 42).text)
        #expect(old.hasPrefix("; begin mat zone ims9.mat.example.\n") && old.hasSuffix("; end mat zone ims9.mat.example.\n"), "\(old)")
        // As one does without thinking.
        try (text + old + new).write(toFile: zone, atomically: false, encoding: .utf8)
        try reload()
        try lab.wait("the old lines are named") {
            try lab.shell("mn", "mat lookup 192.0.2.178 --resolver 203.0.113.130").text.contains(
                "the zone lists 203.0.113.139:6288 more than once: lines of an earlier `mat zone`")
        }
        let replaced = try lines(seed: 42, "--into \(zone)")
        #expect(replaced.status == 0 && replaced.text.contains("replaced the lines of ims9.mat.example."), "\(replaced.text)")
        // Those that the lab wrote have no block.
        #expect(replaced.text.contains("names a mapping server, outside of a block"), "\(replaced.text)")
        let after = try String(contentsOfFile: zone, encoding: .utf8)
        #expect(after.components(separatedBy: "; begin mat zone ims9").count == 2 && after.contains(new), "\(after.suffix(2000))")
        try reload()
        try lab.wait("each server is listed once") {
            let found = try lab.shell("mn", "mat lookup 192.0.2.178 --resolver 203.0.113.130").text
            return found.contains("203.0.113.139") && !found.contains("more than once")
        }
    }

    @Test("A clock that is wrong at the start: status and doctor say by how much and against whom, and a right one registers")
    func clock() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        func restart(aheadBy seconds: Int) throws {
            try "\(seconds)\n".write(toFile: "/run/\(lab.name)/mn/clock", atomically: false, encoding: .utf8)
            try lab.lab("stop", "mn")
            try lab.lab("start", "mn")
        }
        defer { try? restart(aheadBy: 0) }
        for seconds in [7200, -7200] {
            try restart(aheadBy: seconds)
            try lab.wait("mn knows that its clock is wrong: \(try mat(lab, "mn", "status").text)", seconds: 20) {
                (try lab.status("mn")["homes"] as? [[String: Any]] ?? []).contains { $0["problemCode"] as? String == "clock-wrong" }
            }
            let text = try mat(lab, "mn", "status").text
            let word = seconds > 0 ? "ahead" : "behind"
            #expect(text.contains("clock") && text.contains(word) && text.contains("timedatectl set-ntp true"), "\(text)")
            let found = try doctor(lab, "mn")
            #expect(found.split(separator: "\n").contains { $0.hasPrefix("problem") && $0.contains("clock") && $0.contains(word) }, "\(found)")
        }
        try restart(aheadBy: 0)
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
    }

    @Test("A private mobile address that is routed as it is: this node is told the true cause, and that `routed` names it")
    func privateAddress() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        try lab.wait("wlan0 has its lease") { try lab.shell("mn", "ip -4 -o addr show wlan0").text.contains("inet ") }
        let device = try lab.shell("r", "ip -o route get $(ip netns exec \(lab.name)-mn ip -4 -o addr show wlan0 | awk '{print $4}' | cut -d/ -f1)")
            .text
        let far = try #require(device.split(separator: " ").drop { $0 != "dev" }.dropFirst().first.map(String.init), "\(device)")
        // Somebody gives the network addresses of RFC 1918 and no translator.
        _ = try lab.shell("r", "ip addr add 10.77.0.1/24 dev \(far)")
        defer {
            _ = try? lab.shell("r", "ip addr del 10.77.0.1/24 dev \(far)")
            _ = try? lab.lab("detach", "mn", "wlan")
            _ = try? lab.lab("attach", "mn", "wlan")
        }
        _ = try lab.shell(
            "mn", "ip -4 addr flush dev wlan0; ip addr add 10.77.0.2/24 dev wlan0; ip route add default via 10.77.0.1 dev wlan0 metric 50")
        try lab.wait("status names the private address", seconds: 20) {
            let text = try mat(lab, "mn", "status").text
            return text.contains("10.77.0.2") && text.contains("a private address (RFC 1918)") && text.contains("`routed`")
        }
        #expect(try doctor(lab, "mn").contains("10.77.0.2"))
    }

    @Test("A stub resolver that does not run, or whose upstream is silent, is named as the cause; what is reached by other names goes on")
    func stubResolver() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        let config = "/run/\(lab.name)/mn/matd.yaml"
        let (text, file) = (try String(contentsOfFile: config, encoding: .utf8), "/etc/netns/\(lab.name)-mn/resolv.conf")
        let resolvers = try String(contentsOfFile: file, encoding: .utf8)
        // It is mounted there, so it must stay the same file.
        func write(_ text: String) throws {
            let handle = try #require(FileHandle(forWritingAtPath: file))
            try handle.truncate(atOffset: 0)
            try handle.write(contentsOf: Data(text.utf8))
            try handle.close()
        }
        defer {
            try? write(resolvers)
            try? text.write(toFile: config, atomically: false, encoding: .utf8)
            _ = try? lab.lab("stop", "mn")
            _ = try? lab.lab("start", "mn")
        }
        try text.replacing(/dns:\n  resolvers: .*\n/, with: "").write(toFile: config, atomically: false, encoding: .utf8)
        try lab.lab("stop", "mn")
        try write("nameserver 127.0.0.53\n")
        try lab.lab("start", "mn")
        try lab.wait("status says that the stub does not answer", seconds: 20) {
            try mat(lab, "mn", "status").text.contains("none of them gives answers")
        }
        let alone = try doctor(lab, "mn")
        #expect(alone.contains("the DNS server 127.0.0.53: not reachable") && alone.contains("/etc/resolv.conf"), "\(alone)")
        #expect(alone.contains("systemctl status systemd-resolved"), "\(alone)")
        // It runs, and whom it asks is silent.
        let stub = try lab.start(
            "mn", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces",
            "--listen-address=127.0.0.53", "--server=203.0.113.250", "--pid-file=")
        defer { stub.terminate() }
        try lab.wait("status names it still, with another reason", seconds: 20) {
            let found = try mat(lab, "mn", "status").text
            return found.contains("127.0.0.53  ") && found.contains("none of them gives answers") && !found.contains("not reachable")
        }
        try write("nameserver 203.0.113.131\n")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
    }

    @Test("A node whose address is revoked is shown as revoked to itself and to others, not as switched off")
    func revoked() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        try lab.lab("attach", "mn2", "wlan")
        #expect(try mat(lab, "mn2", "status --wait 20").status == 0)
        #expect(try lab.shell("mn", "ping -c 3 -i 0.2 -W 2 192.0.2.11").status == 0)
        #expect(try mat(lab, "ims1", "ims revoke 192.0.2.11").status == 0)
        // Both ends hear of it by themselves.
        try lab.wait("mn2 knows that it is revoked: \(lab.log("mn2").suffix(2000))", seconds: 3) {
            let homes = try lab.status("mn2")["homes"] as? [[String: Any]] ?? []
            return homes.contains { $0["problemCode"] as? String == "certificate-revoked" }
        }
        try lab.wait("mn knows that mn2 is revoked: \(lab.log("mn").suffix(2000))", seconds: 3) {
            try mat(lab, "mn", "peers").text.contains("192.0.2.11: revoked: the operator of its mapping server took the address")
        }
        #expect(try mat(lab, "mn", "why 192.0.2.11").text.contains("revoked: the operator"))
        let others = try lab.shell("mn", "mat lookup 192.0.2.11").text
        #expect(
            others.contains("192.0.2.11 is revoked: the operator of its mapping server took the address") && !others.contains("switched off"),
            "\(others)")
        let own = try mat(lab, "mn2", "status").text
        #expect(own.contains("the certificate was revoked at 20") && own.contains("took this address back"), "\(own)")
        #expect(try doctor(lab, "mn2").contains("was revoked at"))
    }
}
