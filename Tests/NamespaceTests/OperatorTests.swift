import Foundation
import Glibc
import Testing

/// What an operator is told: of conversations, of a whole node, and after a wrong turn; with real daemons, a real DNS and real sockets.
///
/// ```
///   mn ---- wlan0 ---- r ---- cn (a peer), plain (a host without MAT), ns, resolver, ims1, ims2
/// ```
@Suite("What an operator sees", .serialized, .lab("oper"))
struct OperatorTests {
    private func mat(_ lab: Lab, _ host: String, _ arguments: String) throws -> Lab.Output {
        try lab.shell(host, "mat \(arguments) --control \(lab.control(host))")
    }

    private func json(_ lab: Lab, _ host: String, _ arguments: String) throws -> [String: Any] {
        let output = try lab.shell(host, "mat \(arguments) --json --control \(lab.control(host)) 2>&1")
        return try #require(try JSONSerialization.jsonObject(with: Data(output.text.utf8)) as? [String: Any], "\(output.text)")
    }

    /// A TCP connection from a host, by what its listener is reached at, from an address of its own if one is named.
    private func connect(_ lab: Lab, _ near: String, _ far: String, _ address: String, port: UInt16, from own: String? = nil) throws
        -> [HostSocket]
    {
        let listener = try HostSocket(lab, far, SOCK_STREAM, isIPv4: !address.contains(":"))
        try listener.bindAll(port: port)
        try listener.listen()
        let client = try HostSocket(lab, near, SOCK_STREAM, isIPv4: !address.contains(":"))
        if let own { try client.bind(own, port: 0) }
        try client.connect(address, port: port)
        return [client, try listener.accept(), listener]
    }

    @Test(
        "mat explain says of a peer's connection that it survives, and of plain ones why they do not: a plain host, and a socket at a mobile address")
    func explain() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        for (peer, plain) in [("198.51.100.20", "203.0.113.200"), ("2001:db8:20::20", "2001:db8:99::200")] {
            let bracketed = peer.contains(":") ? "[\(peer)]" : peer
            let mapped = try connect(lab, "mn", "cn", peer, port: 7000)
            let good = try mat(lab, "mn", "explain \(bracketed):7000")
            #expect(good.status == 0 && good.text.contains("survives  yes: it goes on when either end moves"), "\(good.text)")
            #expect(good.text.contains("path      direct to its home address from") && good.text.contains("(wlan0)"))
            // By the other end too, whose `traffic` lists the home addresses of mn.
            let other = try mat(lab, "cn", "explain \(peer.contains(":") ? "2001:db8:10::10" : "192.0.2.10")")
            #expect(other.status == 0 && other.text.contains("path      direct to"), "\(other.text)")
            let beside = try connect(lab, "mn", "plain", plain, port: 7001)
            let bad = try mat(lab, "mn", "explain \(plain)")
            #expect(bad.status == 1 && bad.text.contains("the DNS names no mapping server for \(plain): it is a plain host"), "\(bad.text)")
            #expect(bad.text.contains("survives  no") && bad.text.contains("gateway"))
            withExtendedLifetime((mapped, beside)) {}
        }
        let own = try #require(
            (try lab.status("mn")["locators"] as? [[String: Any]])?.compactMap { $0["address"] as? String }.first { !$0.contains(":") })
        let bound = try connect(lab, "mn", "cn", "198.51.100.20", port: 7002, from: own)
        let line = try lab.shell("mn", "ss -tnH dst 198.51.100.20 dport 7002").text.trimmingCharacters(in: .whitespacesAndNewlines)
        let output = try lab.shell("mn", "mat explain '\(line)' --control \(lab.control("mn"))")
        #expect(
            output.status == 1 && output.text.contains("its own address is \(own) of wlan0, which is not a home address"), "\(line)\n\(output.text)")
        // cn listens to nobody but to home addresses.
        #expect(try json(lab, "cn", "explain 203.0.113.200")["conversations"] as? [[String: Any]] != nil)
        #expect(try mat(lab, "cn", "explain 203.0.113.200").text.contains("`traffic` in matd.yaml does not select it"))
        withExtendedLifetime(bound) {}
    }

    @Test("mat explain of a process tells of each of its sockets, and what is wrong with a number that is none, is another's, or is elsewhere")
    func process() throws {
        let lab = try Lab.shared
        try lab.lab("attach", "mn", "wlan")
        #expect(try mat(lab, "mn", "status --wait 20").status == 0)
        let listener = try HostSocket(lab, "cn", SOCK_STREAM, isIPv4: true)
        try listener.bindAll(port: 7010)
        try listener.listen()
        let program = try lab.start("mn", "/bin/bash", "-c", "exec 3<>/dev/tcp/198.51.100.20/7010; echo $$; exec sleep 60")
        try lab.wait("the program is connected") { program.text.hasSuffix("\n") }
        let id = try #require(Int32(program.text.trimmingCharacters(in: .whitespacesAndNewlines)))
        let report = try json(lab, "mn", "explain \(id)")
        #expect((report["process"] as? [String: Any])?["name"] as? String == "sleep")
        let conversations = try #require(report["conversations"] as? [[String: Any]])
        #expect(conversations.count == 1 && (conversations[0]["traffic"] as? [String: Any])?["survives"] as? String == "yes", "\(report)")
        #expect((conversations[0]["socket"] as? [String: Any])?["remote"] as? String == "198.51.100.20:7010")
        // From another network namespace, and as somebody who may not look.
        let elsewhere = try lab.shell("mn2", "mat explain \(id) --control \(lab.control("mn")) 2>&1")
        #expect(elsewhere.status == 1 && elsewhere.text.contains("is in another network namespace"), "\(elsewhere.text)")
        let refused = try lab.shell("mn", "setpriv --reuid 65534 --clear-groups mat explain \(id) --control \(lab.control("mn")) 2>&1")
        #expect(refused.status == 1 && refused.text.contains("run this as root"), "\(refused.text)")
        program.terminate()
        _ = try program.wait(seconds: 5)
        let gone = try lab.shell("mn", "mat explain \(id) --control \(lab.control("mn")) 2>&1")
        #expect(gone.status == 1 && gone.text.contains("there is no process \(id)"), "\(gone.text)")
    }
}
