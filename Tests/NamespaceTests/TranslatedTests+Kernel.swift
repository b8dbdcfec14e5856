import Foundation
import Glibc
import Testing

/// What the kernel carries by itself behind a NAT, and what it leaves to the agent.
extension TranslatedTests {
    /// The agent stands still meanwhile: what goes on is the kernel's.
    private func withoutAgent<T>(_ lab: Lab, _ host: String, _ body: () throws -> T) throws -> T {
        let agent = try lab.agent(host)
        kill(agent, SIGSTOP)
        defer { kill(agent, SIGCONT) }
        return try body()
    }

    /// Bursts that the stack is to cut up (UDP_SEGMENT), as QUIC sends them; each datagram has its number and what only it contains.
    private static func burst(_ first: Int, segments: Int, octets: Int) -> [[UInt8]] {
        (first..<first + segments).map { number in
            withUnsafeBytes(of: UInt32(number).bigEndian) { Array($0) } + (4..<octets).map { UInt8(truncatingIfNeeded: number &* 31 &+ $0) }
        }
    }

    @Test("QUIC's bursts (UDP_SEGMENT) arrive whole beside packets that the kernel carries, before and after a move between NATs")
    func bursts() throws {
        let lab = try Lab.shared
        let (segments, octets, port) = (20, 1100, UInt16(4433))
        try lab.lab("move", "mn", "home")
        let server = try HostSocket(lab, "cn", SOCK_DGRAM, isIPv4: true)
        try server.bindAll(port: port)
        server.echo()
        defer { server.endEcho(Self.cn, port: port) }
        let plain = try HostSocket(lab, "mn", SOCK_DGRAM, isIPv4: true)
        try plain.connect(Self.cn, port: port)
        let quic = try HostSocket(lab, "mn", SOCK_DGRAM, isIPv4: true)
        try quic.connect(Self.cn, port: port)
        var each = Int32(octets)
        #expect(setsockopt(quic.descriptor, 17, 103, &each, 4) == 0)
        for socket in [plain, quic] { socket.setTimeout(1) }
        func answer(_ socket: HostSocket, to octets: [UInt8]) -> Bool {
            do {
                try socket.send(octets)
                return try socket.receive() == octets
            } catch { return false }
        }
        for (round, network) in ["home", "carrier"].enumerated() {
            if round > 0 { try lab.lab("move", "mn", network) }
            try lab.wait("cn answers mn in \(network)") { answer(plain, to: [1, 2, 3]) }
            try lab.wait("the kernel carries packets in \(network)") {
                try withoutAgent(lab, "mn") { (0..<5).allSatisfy { _ in answer(plain, to: [4, 5, 6]) } }
            }
            for number in 0..<5 {
                let sent = Self.burst(1000 * round + 100 * number, segments: segments, octets: octets)
                try quic.send(Array(sent.joined()))
                var came: Set<[UInt8]> = []
                while came.count < segments, let one = try? quic.receive() { came.insert(one) }
                #expect(came == Set(sent), "\(network), burst \(number): \(came.count) of \(segments) whole")
            }
        }
    }

    @Test("ssh goes on while leases behind a NAT are renewed, and end and come again, with and without the agent")
    func leases() throws {
        let lab = try Lab.shared
        try lab.lab("move", "mn", "home")
        let directory = "/run/\(lab.name)/leases"
        let keys = "mkdir -p \(directory) /run/sshd && for k in host user; do ssh-keygen -q -t ed25519 -N '' -f \(directory)/$k </dev/null; done"
        #expect(try lab.shell("cn", keys).status == 0)
        let options = ["PidFile=none", "StrictModes=no", "UsePAM=no", "PermitRootLogin=yes", "AuthorizedKeysFile=\(directory)/user.pub"]
        let words = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "7023", "-h", "\(directory)/host"] + options.flatMap { ["-o", $0] }
        let server = try lab.start("cn", "/usr/bin/env", arguments: words)
        defer { server.terminate() }
        try lab.wait("cn has a server of ssh") { try lab.shell("cn", "ss -ltn | grep -q :7023").status == 0 }
        let accepts = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "TCPKeepAlive=no"].flatMap { ["-o", $0] }
        let client = try lab.start(
            "mn", "ssh",
            arguments: ["-q", "-F", "/dev/null", "-i", "\(directory)/user", "-p", "7023"] + accepts
                + ["root@\(Self.cn)", "n=0; while sleep 0.05; do n=$((n+1)); echo $n; done"])
        defer { client.terminate() }
        func numbers() -> [Int] { client.text.split(separator: "\n").dropLast().compactMap { Int($0) } }
        func goesOn(_ what: String) throws {
            let before = numbers().count
            try lab.wait("ssh goes on after \(what)") { numbers().count >= before + 10 }
            #expect(client.isRunning)
        }
        try goesOn("its start")
        func signal(_ name: String) throws {
            let done = try lab.shell("mn", "kill -\(name) $(cut -d' ' -f1 /run/\(lab.name)/mn/dhcp-wlan0.pid)")
            #expect(done.status == 0, "\(done.text)")
        }
        // A renewal as clients ask for it by themselves.
        for _ in 0..<3 {
            try signal("USR1")
            try goesOn("a renewal")
        }
        // The lease is given back, so that the address goes; and asked for anew.
        try signal("USR2")
        Thread.sleep(forTimeInterval: 0.3)
        try signal("USR1")
        try goesOn("another lease")
        try withoutAgent(lab, "mn") {
            try signal("USR1")
            try goesOn("a renewal without the agent")
        }
        try goesOn("the agent's return")
        let all = numbers()
        #expect(all == Array(1...max(1, all.count)))
    }
}
