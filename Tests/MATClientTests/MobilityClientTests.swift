import Foundation
import MATSignal
import Testing

@testable import MATClient

/// What a client is to who has it: its thread, its streams, and the agent that it asks. No network: the resolver is a port where nobody listens.
@Suite("A client and its thread", .serialized)
struct MobilityClientTests {
    private let hoa = HomeAddress(IPAddress(ipv4: 0xC000_020A))

    private func options(control: String = "/nonexistent/control.sock") -> MobilityClient.Options {
        var options = MobilityClient.Options()
        options.resolvers = [Endpoint(IPAddress(ipv4: 0x7F00_0001), port: 1)]
        options.control = control
        return options
    }

    /// The clients' threads of this process.
    private var threads: Int {
        guard let folder = opendir("/proc/self/task") else { return -1 }
        defer { closedir(folder) }
        var count = 0
        while let entry = readdir(folder) {
            let task = withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } }
            let name = open("/proc/self/task/\(task)/comm", O_RDONLY)
            guard name >= 0 else { continue }
            defer { close(name) }
            var octets = [UInt8](repeating: 0, count: 32)
            let length = read(name, &octets, octets.count)
            if String(decoding: octets.prefix(max(0, length)), as: UTF8.self) == "\(ClientThread.name)\n" { count += 1 }
        }
        return count
    }

    private func waitUntilNoThread() async throws {
        for _ in 0..<500 where threads > 0 { try await Task.sleep(for: .milliseconds(10)) }
        #expect(threads == 0)
    }

    @Test("Without a resolver a look-up says that nothing is known, and a client that nobody has any more takes its thread along")
    func ends() async throws {
        do {
            let client = try MobilityClient(options())
            let failure = await #expect(throws: LookUpFailure.self) { try await client.lookUp(hoa) }
            #expect(failure?.cause == .names && threads == 1)
        }
        try await waitUntilNoThread()
    }

    @Test("A watch keeps its client as long as it is read, and no longer")
    func watchKeepsClient() async throws {
        do {
            let stream = try MobilityClient(options()).watch(hoa)
            var news = stream.makeAsyncIterator()
            guard case .failed(let failure)? = await news.next() else { throw VerificationFailure("nothing is told") }
            #expect(failure.cause == .names && threads == 1)
        }
        try await waitUntilNoThread()
    }

    @Test("A client asks whom the node's configuration names; without a file the system's servers, and with a wrong one none")
    func nodeServers() throws {
        let path = "/tmp/mat-client-\(getpid())-\(UInt32.random(in: 0 ... .max)).yaml"
        defer { unlink(path) }
        let none = try MobilityClient.Options.ofNode(configuration: path)
        #expect(none.resolvers.isEmpty && !none.requiresDNSSEC)
        let text = "traffic: nothing\ndns:\n  resolvers: [192.0.2.53, '[2001:db8::53]:5353']\n  require-dnssec: true\n"
        try text.write(toFile: path, atomically: false, encoding: .utf8)
        let named = try MobilityClient.Options.ofNode(configuration: path)
        let six = Endpoint(try #require(IPAddress("2001:db8::53")), port: 5353)
        #expect(named.resolvers == [Endpoint(IPAddress(ipv4: 0xC000_0235), port: 53), six] && named.requiresDNSSEC)
        try text.replacing("192.0.2.53", with: "192.0.2.530").write(toFile: path, atomically: false, encoding: .utf8)
        let failure = #expect(throws: ClientError.self) { try MobilityClient.Options.ofNode(configuration: path) }
        let reason = try #require(failure?.description)
        #expect(reason.hasPrefix("\(path) may name others to ask (`dns`), and was not read: "), "\(reason)")
    }

    @Test("Where no agent runs, asking for a visited home says so")
    func noAgent() async throws {
        let client = try MobilityClient(options())
        let failure = await #expect(throws: ClientError.self) { try await client.visitedHome(.ipv4) }
        #expect(failure?.description.contains("matd isn't running") == true, "\(String(describing: failure))")
    }

    @Test("A visited home is there until it is given back, which the agent sees, or until the agent ends, which the program is told")
    func visitedHome() async throws {
        let agent = try Agent()
        let client = try MobilityClient(options(control: agent.path))
        let first = try await client.visitedHome(.ipv6)
        #expect(agent.request.contains(#""command":"visit""#) && agent.request.contains("ipv6"), "\(agent.request)")
        #expect(first.address == HomeAddress("2001:db8::77"))
        #expect(!agent.hasLostProgram(within: 0))
        first.giveBack()
        await first.ended()
        #expect(agent.hasLostProgram(within: 5000))

        let again = try Agent()
        let second = try await MobilityClient(options(control: again.path)).visitedHome(.ipv6)
        again.end()
        await second.ended()
    }

    /// An agent that gives one program a visited home.
    private final class Agent: @unchecked Sendable {
        let path: String
        private let listener: Int32
        // Written before the answer that its reader waits for.
        private(set) var request = ""
        private var connection: Int32 = -1

        init() throws {
            path = "/tmp/mat-client-\(getpid())-\(UInt32.random(in: 0 ... .max))"
            listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
            var name = sockaddr_un()
            name.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &name.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
            let bound = withUnsafePointer(to: &name) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
            }
            try #require(bound == 0 && listen(listener, 1) == 0)
            try ClientThread.detach { [self] in serve() }
        }

        private func serve() {
            connection = accept(listener, nil, nil)
            var octets = [UInt8](repeating: 0, count: 4096)
            let count = read(connection, &octets, octets.count)
            request = String(decoding: octets.prefix(max(0, count)), as: UTF8.self)
            let answer = #"{"ok":true,"result":{"address":"2001:db8::77"}}"# + "\n"
            _ = write(connection, answer, answer.utf8.count)
        }

        func hasLostProgram(within milliseconds: Int32) -> Bool {
            var entry = pollfd(fd: connection, events: Int16(POLLIN), revents: 0)
            return poll(&entry, 1, milliseconds) == 1
        }

        func end() { shutdown(connection, Int32(SHUT_RDWR)) }

        deinit {
            close(connection)
            close(listener)
            unlink(path)
        }
    }
}
