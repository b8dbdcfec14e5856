import CLinux
import Glibc
import KernelPrograms
import Namespaces
import Testing

/// Why these tests can't run here; `nil` if they can.
private let impossible: String? = {
    if getuid() != 0 { return "not root" }
    return mountPoint == nil ? "no control groups of version 2 are mounted" : nil
}()

private let mountPoint: String? = {
    let found = shellStatus("findmnt -n -t cgroup2 -o TARGET | head -1")
    let path = String(found.output.prefix { !$0.isNewline })
    return path.isEmpty ? nil : path
}()

/// Sockets that the processes of a control group make have its mark.
@Suite("Control groups that mark sockets", .enabled(if: impossible == nil)) struct ControlGroupTests {
    /// The mark that a shell's new socket has, in a group that it is put into before; as ss(8) shows it, without any: an empty text.
    private func mark(in group: ControlGroup?, _ port: Int, within namespace: String = "") throws -> String {
        let enter = group.map { "echo $$ >\($0.path)/cgroup.procs && " } ?? ""
        let listen = "timeout 20 socat TCP-LISTEN:\(port) - & p=$!; until ss -Hltn sport = :\(port) | grep -q .; do sleep 0.02; done"
        let output = shellStatus("\(enter)\(namespace) sh -c '\(listen); ss -Hltne sport = :\(port); kill $p'", within: 20)
        #expect(output.output.contains(":\(port)"), "\(output.output)")
        return output.output.firstMatch(of: /fwmark:(0x[0-9a-f]+)/).map { String($0.1) } ?? ""
    }

    private var cookie: UInt64 {
        let socket = Glibc.socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(socket) }
        return UInt64(mat_network_cookie(socket))
    }

    @Test("A socket has the mark of the innermost group, one that was made elsewhere or in another network namespace has none")
    func marks() throws {
        let mount = try #require(mountPoint)
        let outer = ControlGroup(path: "\(mount)/mat-test-\(getpid())")
        let inner = ControlGroup(path: "\(outer.path)/inner")
        defer { outer.remove() }
        for (group, number) in [(outer, UInt32(0x6288_0007)), (inner, 0x6288_0008)] {
            try group.make()
            try group.tie(mark: number, network: cookie)
            // Again, as by who takes it over: it stays as it is.
            try group.make()
            try group.tie(mark: 99, network: cookie)
        }
        #expect(try mark(in: nil, 7901) == "")
        #expect(try mark(in: outer, 7902) == "0x62880007")
        #expect(try mark(in: inner, 7903) == "0x62880008")
        let other = try Namespace("kp-\(getpid())-m")
        #expect(try mark(in: outer, 7904, within: "ip netns exec \(other.name)") == "")
        // Those that were told to end.
        for _ in 0..<200 where outer.isUsed { usleep(10_000) }
        #expect(!outer.isUsed && outer.processes.isEmpty)
        #expect(outer.remove() && !outer.exists)
    }

    @Test("A group with a process in it stays, and is gone once it has let it go")
    func use() throws {
        let group = ControlGroup(path: "\(try #require(mountPoint))/mat-test-\(getpid())-use")
        try group.make()
        let child = try Child(["/bin/sleep", "60"])
        try group.take(child.pid)
        #expect(group.isUsed && group.processes == [child.pid] && !group.remove())
        try ControlGroup(path: try #require(mountPoint)).take(child.pid)
        #expect(!group.isUsed && group.remove())
        child.end()
        #expect(throws: ProgramError.self) { try group.take(1) }
    }
}
