import Foundation
import MATSignal
import Testing

/// Faults of the network that `mat doctor` finds on a real node, each made with the tool that an operator would make it with.
extension OperatorTests {
    @Test("mat doctor names rules of nftables and iptables-legacy that drop MAT's packets, and a link whose MTU its network does not take")
    func networkFaults() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        func doctor() throws -> String {
            try lab.shell(
                "mn", "mat doctor --node --node-config /run/\(lab.name)/mn/matd.yaml --control \(lab.control("mn")) 2>&1", seconds: 60
            ).text
        }
        let sound = try doctor()
        #expect(sound.contains("firewall") && sound.contains("packets of 1500 octets get to the router"), "\(sound)")
        #expect(!sound.contains("dropped by") && !sound.contains("vanish"), "\(sound)")
        // All at once: each is found beside the others.
        let made = try lab.shell(
            "mn",
            "nft add table inet fw && nft 'add chain inet fw input { type filter hook input priority 0; policy accept; }' && nft add rule inet fw input ct state new udp dport 6289 drop && nft add rule inet fw input ip daddr 192.0.2.10 drop && ip link set wlan0 mtu 9000"
        )
        #expect(made.status == 0, "\(made.text)")
        let legacy = try lab.shell("mn", "iptables-legacy -A OUTPUT -p udp --dport 6290 -j DROP").status == 0
        defer {
            _ = try? lab.shell("mn", "nft delete table inet fw; ip link set wlan0 mtu 1500; iptables-legacy -F OUTPUT")
        }
        let found = try doctor()
        #expect(found.contains("dropped by `ct state new udp dport 6289 drop` (nftables, table inet fw, chain input)"), "\(found)")
        #expect(found.contains("packets to 192.0.2.10 over wlan0 are dropped by `ip daddr 192.0.2.10 drop`"), "\(found)")
        if legacy { #expect(found.contains("`-A OUTPUT -p udp -m udp --dport 6290 -j DROP` (iptables-legacy"), "\(found)") }
        #expect(found.contains("vanish on wlan0, 1500 get there") && found.contains("`ip link set wlan0 mtu 1500`"), "\(found)")
    }

    /// `mat doctor` of a server, which asks the name server itself: what a resolver remembers of before is of no use here.
    private func serverDoctor(_ lab: Lab, _ configuration: String, _ control: String) throws -> String {
        let resolver = "/run/\(lab.name)/ns/resolv.conf"
        try "nameserver 203.0.113.130\n".write(toFile: resolver, atomically: false, encoding: .utf8)
        return try lab.shell(
            "ims1",
            "unshare -m /bin/bash -c 'mount --bind \(resolver) /etc/resolv.conf; mat doctor --ims --ims-config \(configuration) --ims-control \(control)' 2>&1",
            seconds: 60
        ).text
    }

    private func reload(_ lab: Lab, _ zones: [String: String]) throws {
        for (zone, text) in zones { try text.write(toFile: "/run/\(lab.name)/ns/zones/\(zone)", atomically: false, encoding: .utf8) }
        #expect(try lab.shell("ns", "kill -HUP $(cut -d' ' -f1 /run/\(lab.name)/ns/nsd.pid)").status == 0)
    }

    @Test("mat doctor on servers: what the kernel gives them, keys in the zone with which nobody there signs, and forms of the zone that differ")
    func servers() throws {
        let lab = try Lab.shared
        let relay = try lab.attempt(["exec", "relay", "mat", "doctor"]).text
        #expect(relay.contains("has what mat-relay needs of sockets"), "\(relay)")
        // As its own, but that it asks the name server itself.
        let own = ("/run/\(lab.name)/ims1/asking.yaml", lab.control("ims1"))
        let text = try String(contentsOfFile: "/run/\(lab.name)/ims1/imsd.yaml", encoding: .utf8)
        let asking = text.replacing(/resolvers: \[.*\]/, with: "resolvers: [203.0.113.130]")
        try asking.write(toFile: own.0, atomically: false, encoding: .utf8)
        let sound = try serverDoctor(lab, own.0, own.1)
        #expect(sound.contains("has what imsd needs of sockets") && sound.contains("192.0.2.0/24: the DNS names this server's key"), "\(sound)")
        #expect(!sound.contains("does not know") && !sound.contains("misled"), "\(sound)")
        let zone = "2.0.192.in-addr.arpa"
        let lines = try String(contentsOfFile: "/run/\(lab.name)/ns/zones/\(zone)", encoding: .utf8)
        let old = KeyFile.write(try #require(SigningKey(seed: [UInt8](repeating: 43, count: 32))).publicKey)
        let left = try lab.shell("ns", "mat zone --prefix 192.0.2.0/24 --key \(old) --target ims1.mat.example --form ims").text
        defer { try? reload(lab, [zone: lines]) }
        let records = { () throws -> Int in
            let question = "dig +short +time=1 +tries=1 @203.0.113.130 0.2.0.192.in-addr.arpa TYPE65400"
            return try lab.shell("ims1", question).text.split(separator: "\n").count
        }
        let before = try records()
        try reload(lab, [zone: lines + left])
        // The name server reloads when it likes, and doctor starts a dozen programs each time.
        try lab.wait("the name server has the key of before") { try records() > before }
        let found = try serverDoctor(lab, own.0, own.1)
        #expect(
            found.contains("names keys at 0.2.0.192.in-addr.arpa. that this server does not know, beside its own: \(old)"), "\(found)")
        #expect(found.contains("SRV and TXT below 0.2.0.192.in-addr.arpa. name other keys than its records of type IMS"), "\(found)")
    }

    @Test("A prefix longer than /24 with a zone of its own: mat zone writes it, mat finds addresses by its aliases, and doctor tells what lacks")
    func classless() throws {
        let lab = try Lab.shared
        let scratch = "/run/\(lab.name)/classless"
        try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: true)
        try """
        control: \(scratch)/control.sock
        store: \(scratch)/ims.db
        signing-key: \(scratch)/ims.key
        listen: {port: 6300}
        prefixes: [{prefix: 192.0.2.184/29}]
        dns: {resolvers: [203.0.113.130]}
        """.write(toFile: "\(scratch)/imsd.yaml", atomically: false, encoding: .utf8)
        #expect(try lab.shell("ims1", "mat keygen --out \(scratch)/ims.key").status == 0)
        let server = try lab.start("ims1", "imsd", "--config", "\(scratch)/imsd.yaml")
        defer { server.terminate() }
        let written = "mat zone --config \(scratch)/imsd.yaml --target ims1.mat.example --origin rev.mat.example"
        let (lines, aliases) = (try lab.shell("ims1", written).text, try lab.shell("ims1", "\(written) --parent").text)
        #expect(aliases.hasPrefix("184.2.0.192.in-addr.arpa. 300 IN CNAME 184.rev.mat.example.\n"), "\(aliases)")

        func zone(_ name: String) throws -> String { try String(contentsOfFile: "/run/\(lab.name)/ns/zones/\(name)", encoding: .utf8) }
        let (forward, reverse) = (try zone("mat.example"), try zone("2.0.192.in-addr.arpa"))
        defer { try? reload(lab, ["mat.example": forward, "2.0.192.in-addr.arpa": reverse]) }
        // Aliases into a zone without lines, and one into a zone that nobody has.
        let lame = aliases.replacing("CNAME 191.rev.", with: "CNAME 191.lame.")
        try reload(lab, ["mat.example": forward + "lame.mat.example. NS ns.mat.example.\n", "2.0.192.in-addr.arpa": reverse + lame])
        var found = ""
        try lab.wait("doctor names both: \(found)", seconds: 40) {
            found = try serverDoctor(lab, "\(scratch)/imsd.yaml", "\(scratch)/control.sock")
            return found.contains(
                "7 addresses (192.0.2.184, 192.0.2.185, 192.0.2.186, 192.0.2.187, ...) are aliases into rev.mat.example., which has no")
        }
        #expect(found.contains("the names of 192.0.2.191 are aliases into lame.mat.example., of which DNS gives no answer"), "\(found)")
        let lookup = { (address: String) in try lab.shell("mn", "mat lookup \(address) --resolver 203.0.113.130").text }
        #expect(try lookup("192.0.2.185").contains("`mat zone --origin rev.mat.example.`"))

        try reload(lab, ["mat.example": forward + lines, "2.0.192.in-addr.arpa": reverse + aliases])
        try lab.wait("doctor finds all: \(found)", seconds: 40) {
            found = try serverDoctor(lab, "\(scratch)/imsd.yaml", "\(scratch)/control.sock")
            return found.contains("192.0.2.184/29: all 8 addresses have a mapping server, by aliases (CNAME) into rev.mat.example.")
        }
        #expect(found.contains("192.0.2.184/29: the DNS names this server's key at 184.2.0.192.in-addr.arpa."), "\(found)")
        for resolver in ["", "--resolver 203.0.113.130"] {
            let text = try lab.shell("mn", "mat lookup 192.0.2.188 \(resolver)").text
            #expect(text.contains("alias of   188.rev.mat.example.") && text.contains("192.0.2.188 is not registered"), "\(text)")
            #expect(text.contains("found      IMS, good for"), "\(text)")
        }
        // Keys for a network's certificate are looked up in the zone above, where this server has none.
        let key = KeyFile.write(try #require(SigningKey(seed: [UInt8](repeating: 44, count: 32))).publicKey)
        let enrol = "mat enrol 192.0.2.184/30 --public-key \(key) --control \(scratch)/control.sock"
        // By the servers that imsd.yaml names.
        let asking = { (command: String) in try lab.shell("ims1", "IMSD_CONFIG=\(scratch)/imsd.yaml \(command) 2>&1") }
        let refused = try asking(enrol)
        #expect(
            refused.status == 1 && refused.text.contains("184.2.0.192.in-addr.arpa. is an alias of 184.rev.mat.example.")
                && refused.text.contains("looked up at 2.0.192.in-addr.arpa., which has none of this server's")
                && refused.text.contains("Asked: 203.0.113.130:53 (`dns` in \(scratch)/imsd.yaml)"), "\(refused)")
        #expect(try !asking("\(enrol) --force").text.contains("is an alias of"))
        #expect(try asking(enrol.replacing("192.0.2.184/30", with: "192.0.2.188")).status == 0)
        let traced = try lab.shell("mn", "mat trace 192.0.2.188 --control \(lab.control("mn"))", seconds: 40).text
        #expect(traced.contains("188.2.0.192.in-addr.arpa., an alias of 188.rev.mat.example."), "\(traced)")
    }
}
