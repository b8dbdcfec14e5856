import Glibc
import Namespaces
import Testing

@Suite("Network namespaces", .enabled(if: getuid() == 0, "network namespaces need root"))
struct NamespaceTests {
    private func name(_ role: String) -> String { "nst-\(getpid())-\(role)" }

    @Test("Two hosts reach one another at once, in both families, and go with their values")
    func connected() throws {
        do {
            let a = try Namespace(name("a"))
            let b = try Namespace(name("b"))
            try a.connect("eth0", to: b, "eth0")
            try a.add(["192.0.2.1/24", "2001:db8::1/64"], dev: "eth0")
            try b.add(["192.0.2.2/24", "2001:db8::2/64"], dev: "eth0")
            for address in ["192.0.2.2", "2001:db8::2"] { #expect(a.attempt("ping -n -c 1 -W 2 \(address)").status == 0) }
            #expect(Namespace.names().contains(a.name) && Namespace.exists(b.name))
        }
        #expect(!Namespace.exists(name("a")) && !Namespace.exists(name("b")))
    }

    @Test("Work inside a namespace sees its settings, and the caller stays where it was")
    func inside() throws {
        let host = try Namespace(name("inside"))
        try host.forward()
        let before = try shell("readlink /proc/thread-self/ns/net")
        #expect(try host.run("cat /proc/sys/net/ipv4/ip_forward") == "1\n")
        #expect(try host.inside { getpid() } == getpid())
        #expect(try shell("readlink /proc/thread-self/ns/net") == before)
        #expect(throws: ShellError.self) { try host.set(["net.ipv4.no_such_setting": "1"]) }
    }

    @Test("A name that is taken is an error, and what has it stays")
    func taken() throws {
        let first = try Namespace(name("taken"))
        #expect(throws: ShellError.self) { try Namespace(first.name) }
        #expect(Namespace.exists(first.name))
    }

    @Test("Of several that can't all be made, none is left")
    func allOrNone() throws {
        let first = try Namespace(name("all"))
        #expect(throws: ShellError.self) { try Namespace.make([name("new"), first.name]) }
        #expect(!Namespace.exists(name("new")) && Namespace.exists(first.name))
    }

    @Test("A failing ip command is told with what ip said")
    func failure() throws {
        let host = try Namespace(name("failure"))
        let error = #expect(throws: ShellError.self) { try host.ipBatch(["link set lo up", "link set nowhere up"]) }
        #expect(error?.description.contains("nowhere") == true)
    }

    @Test("What a process that is gone has left is removed, and what a living one has is not")
    func stale() throws {
        let dead = try runCommand(["/bin/sh", "-c", "echo $$"]).output.split(separator: "\n").first ?? ""
        let left = "nsttest-\(dead)-left"
        try Namespace.make([left])
        let own = try Namespace("nsttest-\(getpid())-own")
        Namespace.removeStale(prefix: "nsttest-")
        #expect(!Namespace.exists(left) && Namespace.exists(own.name))
    }

    @Test("Processes in a namespace are found by it")
    func processes() throws {
        let host = try Namespace(name("processes"))
        let child = try Child(["ip", "netns", "exec", host.name, "sleep", "60"])
        let deadline = monotonicSeconds() + 5
        while Namespace.processes(in: host.name).isEmpty, monotonicSeconds() < deadline { usleep(10_000) }
        #expect(Namespace.processes(in: host.name) == [child.pid])
    }
}
