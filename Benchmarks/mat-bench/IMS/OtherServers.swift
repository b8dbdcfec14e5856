import BenchSupport
import Foundation
import Namespaces

/// Something that answers queries at a port: imsd, and what it is compared with.
struct AnsweringServer {
    var name: String
    var title: String
    var port: UInt16
    var isDNS = false
    var end: () -> Void
}

extension IMSHost {
    /// Octets of a MA Answer with one locator and its certificate.
    static let answerOctets = 332

    func bareResponder(port: UInt16) throws -> AnsweringServer {
        let processes = try start("\(programs)/bare-responder :: \(port) \(Self.answerOctets)")
        return AnsweringServer(name: "c", title: "bare C responder", port: port) { processes.end() }
    }

    /// A zone `bench.` with an A record for each node.
    func zone(_ nodes: String, _ count: Int) throws -> String {
        let file = "\(directory)/bench-\(count).zone"
        if access(file, F_OK) != 0 {
            let command = "\(programs)/mat-load population \(nodes).unused --count \(count) --key \(keyPath) --zone \(file)"
            try shell(command, within: Self.commandSecondsMax)
        }
        return file
    }

    func nsd(zone: String, port: UInt16) throws -> AnsweringServer {
        let configuration = """
            server:
              ip-address: 0.0.0.0@\(port)
              server-count: 1
              username: ""
              chroot: ""
              zonesdir: "\(directory)"
              database: ""
              pidfile: "\(directory)/nsd.pid"
              xfrdfile: "\(directory)/xfrd.state"
              xfrdir: "\(directory)"
              zonelistfile: "\(directory)/zone.list"
              logfile: "\(directory)/nsd.log"
              rrl-ratelimit: 0
            remote-control:
              control-enable: no
            zone:
              name: "bench"
              zonefile: "\(zone)"

            """
        try configuration.write(toFile: "\(directory)/nsd.conf", atomically: true, encoding: .utf8)
        // It forks, so that ending what was started does not end all: the children go with the pid in its file.
        let processes = try start("nsd -d -c \(directory)/nsd.conf")
        let server = AnsweringServer(name: "nsd", title: "NSD, as many names", port: port, isDNS: true) { [directory] in
            _ = try? shell("kill $(cat \(directory)/nsd.pid); sleep 0.3")
            processes.end()
        }
        try wait(for: server)
        return server
    }

    func knot(zone: String, port: UInt16) throws -> AnsweringServer {
        let configuration = """
            server:
                rundir: "\(directory)/knot"
                listen: 0.0.0.0@\(port)
                udp-workers: 1
                tcp-workers: 1
                background-workers: 1
            database:
                storage: "\(directory)/knot"
            log:
              - target: stderr
                any: warning
            zone:
              - domain: bench
                file: "\(zone)"
                zonefile-sync: -1
                zonefile-load: whole
                journal-content: none

            """
        try FileManager.default.createDirectory(atPath: "\(directory)/knot", withIntermediateDirectories: true)
        try configuration.write(toFile: "\(directory)/knot.conf", atomically: true, encoding: .utf8)
        let processes = try start("knotd -c \(directory)/knot.conf")
        let server = AnsweringServer(name: "knot", title: "Knot DNS, as many names", port: port, isDNS: true) { processes.end() }
        try wait(for: server)
        return server
    }

    /// A server with a large zone needs its time.
    private func wait(for server: AnsweringServer) throws {
        let patience = Ticks.wall() &+ 300_000_000_000
        while true {
            let answer = try? namespace.run("dig +short +time=1 +tries=1 -p \(server.port) @\(Self.server) 00000000.bench. A")
            if answer?.contains("10.0.0.0") == true { return }
            guard Ticks.wall() < patience else { throw BenchError("\(server.title) does not answer: \(answer ?? "")") }
            usleep(200_000)
        }
    }
}
