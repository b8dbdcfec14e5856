import Foundation
import Glibc
import Testing

/// Mobile nodes that come to a server at home, however its sockets are bound, and however far its IMS is. Each server tells its client's
/// address as its first line: the home address, or the connection ends with the client's next move.
extension StrangerTests {
    private struct Server {
        let cn: String, mn: String, isIPv4: Bool, port: UInt16
    }

    /// Servers on the CN in both families, bound to its address or to none; TCP and UDP on the same port.
    private func withServers(_ lab: Lab, from port: UInt16, _ body: ([Server]) throws -> Void) throws {
        var processes: [Background] = []
        var sockets: [(socket: HostSocket, address: String, port: UInt16)] = []
        defer {
            for each in processes { each.terminate() }
            for each in sockets { each.socket.endEcho(each.address, port: each.port) }
        }
        var servers: [Server] = []
        for (isIPv4, cn, mn) in Self.families {
            for isBound in [true, false] {
                let (number, family) = (port + UInt16(servers.count), isIPv4 ? "4" : "6")
                let bind = isBound ? ",bind=\(isIPv4 ? cn : "[\(cn)]")" : ",bind=\(isIPv4 ? "0.0.0.0" : "[::]")"
                processes.append(
                    try lab.start("cn", "socat", "TCP\(family)-LISTEN:\(number)\(bind),reuseaddr,fork", "SYSTEM:echo $SOCAT_PEERADDR; exec cat"))
                let socket = try HostSocket(lab, "cn", SOCK_DGRAM, isIPv4: isIPv4)
                if isBound { try socket.bind(cn, port: number) } else { try socket.bindAll(port: number) }
                socket.tellSources()
                sockets.append((socket, isBound ? cn : "", number))
                servers.append(Server(cn: cn, mn: mn, isIPv4: isIPv4, port: number))
            }
        }
        try lab.wait("the servers listen") {
            let text = try lab.shell("cn", "ss -Hltun").text
            return servers.allSatisfy { server in text.split(separator: "\n").filter { $0.contains(":\(server.port) ") }.count == 2 }
        }
        try body(servers)
    }

    /// From the first line of a connection, where an IPv6 address comes as `[2001:0db8:...]`, or from a datagram.
    private func canonical(_ octets: [UInt8]) -> String {
        if octets.count == 4 { return octets.map(String.init).joined(separator: ".") }
        let text = String(decoding: octets, as: UTF8.self).trimmingCharacters(in: CharacterSet(charactersIn: "[]\n "))
        var address = in6_addr()
        if octets.count == 16 {
            withUnsafeMutableBytes(of: &address) { $0.copyBytes(from: octets) }
        } else if inet_pton(AF_INET6, text, &address) != 1 {
            return text
        }
        var buffer = [CChar](repeating: 0, count: 64)
        inet_ntop(AF_INET6, &address, &buffer, 64)
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// A connection and a datagram to each server; whom the server says they are from.
    private func visit(_ lab: Lab, _ servers: [Server]) throws -> [(server: Server, connection: HostSocket)] {
        try servers.map { server in
            let connection = try HostSocket(lab, "mn", SOCK_STREAM, isIPv4: server.isIPv4)
            try connection.connect(server.cn, port: server.port)
            #expect(canonical(try connection.receive()) == server.mn, "TCP, port \(server.port)")
            let datagram = try HostSocket(lab, "mn", SOCK_DGRAM, isIPv4: server.isIPv4)
            try datagram.connect(server.cn, port: server.port)
            try datagram.send([1])
            #expect(canonical(try datagram.receive()) == server.mn, "UDP, port \(server.port)")
            return (server, connection)
        }
    }

    private func echo(_ connections: [(server: Server, connection: HostSocket)], _ number: UInt8) throws {
        for (server, connection) in connections {
            connection.setTimeout(10)
            try connection.send([number])
            #expect(try connection.receive() == [number], "port \(server.port)")
        }
    }

    /// All connections go on after a move without overlap, and back with.
    private func surviveMoves(_ lab: Lab, _ connections: [(server: Server, connection: HostSocket)]) throws {
        try lab.handOverWithoutOverlap("mn", to: "cellular")
        try echo(connections, 1)
        try lab.handOverWithOverlap("mn", to: "wlan")
        try echo(connections, 2)
    }

    /// The CN's agent as newly started, with these lines in its configuration.
    private func restartServer(_ lab: Lab, _ lines: String = "") throws {
        try lab.lab("stop", "cn")
        let path = "/run/\(lab.name)/cn/matd.yaml"
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let kept = text.split(separator: "\n").filter { !$0.hasPrefix("peer-idle") && !$0.hasPrefix("poll-interval") }.joined(separator: "\n")
        try (kept + "\n" + lines + "\n").write(toFile: path, atomically: true, encoding: .utf8)
        try lab.lab("start", "cn")
        try lab.wait("cn is registered") { try lab.status("cn")["registered"] as? Bool == true }
    }

    @Test(
        "The first connection of a mobile node to a server that is bound to its address is between home addresses, as to any, and goes on after moves"
    )
    func boundServers() throws {
        let lab = try Lab.shared
        try withServers(lab, from: 7400) { servers in
            // The address is known as a plain client's: it has pinged the server by its MoA.
            try restartServer(lab)
            for (isIPv4, cn, _) in Self.families {
                let source = try lab.shell(
                    "mn", "ip -o \(isIPv4 ? "-4" : "-6") address show dev wlan0 scope global | awk '{ split($4, a, \"/\"); print a[1] }'"
                ).text
                _ = try lab.on("mn", "ping", "-n", "-c", "1", "-W", "1", "-I", source.trimmingCharacters(in: .whitespacesAndNewlines), cn)
            }
            // Not found, which it was, is remembered for 5 s at most.
            try restartServer(lab)
            try surviveMoves(lab, visit(lab, servers))
        }
    }

    @Test("A peer that was forgotten and comes back is asked about as the first time: its connections are between home addresses")
    func forgottenPeer() throws {
        let lab = try Lab.shared
        try restartServer(lab, "peer-idle: 10s\npoll-interval: 1s")
        defer { try? restartServer(lab) }
        try withServers(lab, from: 7410) { servers in
            for _ in 0..<2 {
                let connections = try visit(lab, servers)
                try echo(connections, 1)
                try lab.wait("cn forgets mn", seconds: 30) { try lab.peers("cn").isEmpty }
            }
        }
    }

    @Test("With 200 ms to the server's IMS a conversation begins between home addresses, and loses nothing to its identification")
    func distantServer() throws {
        let lab = try Lab.shared
        try restartServer(lab)
        try lab.lab("delay", "ims2", "100")
        defer { _ = try? lab.lab("undelay", "ims2") }
        let ping = try lab.on("cn", "ping", "-c", "2", "-i", "0.3", "-q", "203.0.113.133").text
        let fastest = try #require(ping.firstMatch(of: /= (\d+)\./).flatMap { Int($0.1) }, "\(ping)")
        #expect(fastest >= 200, "the line is no longer than \(fastest) ms")
        // The round trip is learned with the registration's messages.
        try restartServer(lab)
        try withServers(lab, from: 7420) { servers in
            for server in servers {
                let stream = try HostSocket(lab, "mn", SOCK_DGRAM, isIPv4: server.isIPv4)
                try stream.connect(server.cn, port: server.port)
                stream.setTimeout(3)
                for number in 0..<60 {
                    try stream.send([UInt8(number)])
                    Thread.sleep(forTimeInterval: 0.02)
                }
                var answers: [String] = []
                while answers.count < 60, let answer = try? stream.receive() { answers.append(canonical(answer)) }
                #expect(answers.count == 60 && Set(answers) == [server.mn], "port \(server.port): \(answers.count) of 60 answers, as \(Set(answers))")
            }
            // And as a stranger to a new agent, with its peers' entries all gone.
            try restartServer(lab)
            try surviveMoves(lab, visit(lab, servers))
        }
    }

    /// Connections that a host begins to one of the CN's ports, one every few milliseconds, whatever happens to it meanwhile.
    private final class Beginnings: @unchecked Sendable {
        let server: Server
        let listener: HostSocket
        private(set) var clients: [HostSocket] = []
        private let lock = NSLock()
        private var isOver = false
        private var failure: (any Error)?
        private let finished = DispatchSemaphore(value: 0)

        init(_ lab: Lab, _ server: Server) throws {
            self.server = server
            listener = try HostSocket(lab, "cn", SOCK_STREAM, isIPv4: server.isIPv4)
            try listener.bindAll(port: server.port)
            try listener.listen(backlog: 4096)
            let thread = Thread { [self] in
                while !lock.withLock({ isOver }) {
                    do {
                        let client = try HostSocket(lab, "mn", SOCK_STREAM, isIPv4: server.isIPv4)
                        try client.beginConnecting(server.cn, port: server.port)
                        lock.withLock { clients.append(client) }
                    } catch {
                        // Without any route for a moment nothing begins.
                        lock.withLock { failure = error }
                    }
                    usleep(5000)
                }
                finished.signal()
            }
            thread.start()
        }

        var count: Int { lock.withLock { clients.count } }

        /// The ends of all that began, in pairs, with whom the server's is connected to.
        func end() throws -> [(client: HostSocket, server: HostSocket, from: String)] {
            lock.withLock { isOver = true }
            finished.wait()
            var ends: [UInt16: (socket: HostSocket, from: String)] = [:]
            for _ in clients {
                let accepted = try listener.accept()
                let peer = try accepted.peer()
                ends[peer.port] = (accepted, peer.address)
            }
            return clients.compactMap { client in
                client.setTimeout(3)
                return ends[client.port].map { (client, $0.socket, $0.from) }
            }
        }
    }

    @Test("A connection that begins in the moment of a move, with the first words of it lost, is between home addresses, and goes on after the next")
    func begunInAMove() throws {
        let lab = try Lab.shared
        var limit = rlimit(rlim_cur: 8192, rlim_max: 8192)
        setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        try surviveMoves(lab, [])
        let servers = Self.families.enumerated().map { Server(cn: $1.cn, mn: $1.mn, isIPv4: $1.isIPv4, port: 7430 + UInt16($0)) }
        for server in servers { _ = try lab.on("mn", "ping", "-c", "1", "-W", "2", server.cn) }
        // MA Notify 9, HA Notify 5: what the node and its server say first to anybody.
        let rules = ["ipv4", "ipv6"].flatMap { family in
            [(9, 2), (5, 1)].map { type, count in
                "add rule inet lose forward meta nfproto \(family) udp dport { 6288, 6289 } @th,64,8 \(type)"
                    + " limit rate 1/hour burst \(count) packets counter drop"
            }
        }
        let lines = ["add table inet lose", "add chain inet lose forward { type filter hook forward priority 0; }"] + rules
        let beginnings = try servers.map { try Beginnings(lab, $0) }
        let made = try lab.shell("r", "nft '\(lines.joined(separator: "; "))'")
        #expect(made.status == 0, "\(made.text)")
        defer { _ = try? lab.shell("r", "nft delete table inet lose") }
        try lab.handOverWithoutOverlap("mn", to: "cellular")
        Thread.sleep(forTimeInterval: 0.5)
        let counted = try lab.shell("r", "nft list table inet lose").text
        #expect(counted.contains(/packets [1-9]/), "nothing was lost: \(counted)")
        let all = try beginnings.map { ($0.server, try $0.end(), $0.count) }
        for (server, connections, count) in all {
            #expect(connections.count == count, "\(connections.count) of \(count) connections")
            let others = connections.map(\.from).filter { $0 != server.mn }
            print("begun in a move, \(server.isIPv4 ? "IPv4" : "IPv6"): \(count) connections, \(others.count) of them plain at the server")
            #expect(others.isEmpty, "\(others.count) of \(count): \(Set(others))")
        }
        try lab.handOverWithoutOverlap("mn", to: "wlan")
        for (_, connections, _) in all {
            for (number, (client, end, _)) in connections.enumerated() where number.isMultiple(of: 5) || number > connections.count - 100 {
                try client.send([UInt8(truncatingIfNeeded: number)])
                end.setTimeout(10)
                #expect(try end.receive() == [UInt8(truncatingIfNeeded: number)])
            }
        }
    }
}
