import MATControl
import Testing

@testable import MATCommand

@Suite("What mat ps and mat attach print")
struct ProgramsTextTests {
    private let home = ProgramsReport.Group(
        via: .home, homes: ["192.0.2.10", "2001:db8:10::10"], mark: 1, groups: ["/mat-1-1-192.0.2.10"],
        programs: [ProgramsReport.Program(process: 4711, user: 1000, command: "ssh cn.example")],
        sockets: [
            ProgramsReport.Socket(
                kind: "tcp", state: "established", local: "192.0.2.10:40000", remote: "198.51.100.20:22", path: .relayed,
                locator: "203.0.113.53:6290",
                reason: nil, user: 1000, inode: 7, process: 4711),
            ProgramsReport.Socket(
                kind: "tcp", state: "established", local: "203.0.113.10:40001", remote: "198.51.100.9:80", path: nil, locator: nil, reason: nil,
                user: 1000,
                inode: 8, process: nil),
            ProgramsReport.Socket(
                kind: "udp", state: "unconnected", local: "0.0.0.0:53", remote: nil, path: nil, locator: nil, reason: nil, user: 1000, inode: 9,
                process: nil),
        ])

    @Test("Programs stand with their sockets, and each socket with its path to its peer")
    func programs() {
        let plain = ProgramsReport.Group(
            via: .plain, homes: [], mark: 2, groups: [], programs: [], sockets: [], furtherPrograms: 3, furtherSockets: 4)
        #expect(
            ProgramsText.text(ProgramsReport(groups: [home, plain])) == """
                from 192.0.2.10 and 2001:db8:10::10:
                   PID  USER  COMMAND
                  4711  1000  ssh cn.example

                   PID  SOCKET  STATE        LOCAL               PEER              PATH
                  4711  tcp     established  192.0.2.10:40000    198.51.100.20:22  relayed, by 203.0.113.53:6290
                     -  tcp     established  203.0.113.10:40001  198.51.100.9:80   plain
                     -  udp     unconnected  0.0.0.0:53          -                 -

                from the network's own addresses:
                  and 3 more programs
                  and 4 more sockets

                """)
        #expect(ProgramsText.text(ProgramsReport(groups: [])) == "no programs; `mat run` starts one\n")
    }

    @Test("Where the next sockets of a program start from is said in a sentence")
    func attached() {
        #expect(
            ProgramsText.text(SteerReport(process: 7, via: .plain, homes: []))
                == "the next sockets of process 7 start from the network's own addresses\n")
        #expect(
            ProgramsText.text(SteerReport(process: 7, via: .visited, homes: ["198.51.100.130"]))
                == "the next sockets of process 7 start from 198.51.100.130 (visited)\n")
        #expect(
            ProgramsText.text(SteerReport(process: 7, via: .home, homes: ["192.0.2.10"])) == "the next sockets of process 7 start from 192.0.2.10\n")
    }

    @Test("--via takes a word, or home addresses of different families")
    func via() throws {
        func request(_ arguments: String...) throws -> SteerRequest { try ViaOptions.parse(arguments).request(process: nil, network: nil) }
        #expect(try request() == SteerRequest(via: .home))
        #expect(try request("--via", "plain") == SteerRequest(via: .plain))
        #expect(try request("--via", "192.0.2.10", "--via", "2001:db8::1") == SteerRequest(via: .home, homes: ["192.0.2.10", "2001:db8::1"]))
        for wrong in [["192.0.2.10", "192.0.2.11"], ["plain", "192.0.2.10"], ["plain", "home"], ["elsewhere"]] {
            #expect(throws: (any Error).self) { try ViaOptions.parse(wrong.flatMap { ["--via", $0] }) }
        }
    }

    @Test("What stands behind the command belongs to the command")
    func passedOn() throws {
        func command(_ words: String...) throws -> RunCommand { try #require(try MatCommand.parseAsRoot(["run"] + words) as? RunCommand) }
        let ssh = try command("--via", "plain", "ssh", "-p", "22", "--json", "host")
        #expect(ssh.command == ["ssh", "-p", "22", "--json", "host"] && ssh.via.vias == ["plain"])
        #expect(try command("--", "ls", "-l").command.suffix(2) == ["ls", "-l"])
    }
}
