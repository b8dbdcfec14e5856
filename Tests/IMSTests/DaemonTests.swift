import Glibc
import MATRuntime
import MATSignal
import Testing

/// A running imsd, killed at the latest when the test forgets it.
final class Daemon {
    private(set) var pid: pid_t = 0
    var processID: pid_t { pid }

    /// The program beside the test bundle; `nil` if it was not built.
    static var program: String? {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count)
        guard count > 0 else { return nil }
        let own = String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let path = own.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" } + "/imsd"
        return access(path, X_OK) == 0 ? path : nil
    }

    /// - Parameters:
    ///   - wrapper: a program that runs imsd, with its arguments before imsd's own.
    ///   - environment: beside what this process has, such as `NAME=value`.
    init(_ arguments: [String], log: String, wrapper: [String] = [], environment: [String] = []) throws {
        let imsd = try #require(Self.program)
        let program = wrapper.first ?? imsd
        let arguments = wrapper.isEmpty ? arguments : wrapper.dropFirst() + [imsd] + arguments
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        var strings: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
        defer { for string in strings { free(string) } }
        var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup($0) }
        let own = variables
        defer { for string in own { free(string) } }
        var next = environ
        while let variable = next.pointee {
            variables.append(variable)
            next += 1
        }
        variables.append(nil)
        try #require(posix_spawn(&pid, program, &actions, nil, &strings, variables) == 0)
    }

    /// - Returns: the exit status, or minus the signal that ended it.
    func wait() -> Int32 {
        guard pid > 0 else { return 0 }
        var status: Int32 = 0
        waitpid(pid, &status, 0)
        pid = 0
        return status & 0x7F == 0 ? status >> 8 & 0xFF : -(status & 0x7F)
    }

    /// Sends a signal that does not end it.
    @discardableResult
    func signal(_ number: Int32) -> Int32 { pid > 0 ? Glibc.kill(pid, number) : -1 }

    func kill(_ signal: Int32) -> Int32 {
        self.signal(signal)
        return wait()
    }

    deinit { _ = kill(SIGKILL) }
}

/// A client over loopback. Loopback addresses can't be locators, so its mappings are of networks or withdrawn.
final class Client {
    let descriptor: Int32
    let port: UInt16
    /// Of the last question; each has its own, far from what tests number by themselves.
    private var sequence: UInt32 = 1 << 31

    init(port: UInt16) throws {
        self.port = port
        descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        try #require(descriptor >= 0)
        var patience = timeval(tv_sec: 0, tv_usec: 200_000)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close(descriptor) }

    /// Sends until there is an answer, and repeats with the cookie that was asked for. OBSERVED holds a loopback address here, which
    /// makes an IMS Update Reply malformed to our own decoder, so of such there is only the code. An answer that comes late, to a question
    /// before, is not taken for this one's.
    func ask(_ make: (Cookie) -> SignalMessage.Body) throws -> (code: ResponseCode, message: SignalMessage?) {
        var cookie = Cookie(client: 1)
        let first = sequence &+ 1
        for _ in 0..<50 {
            sequence &+= 1
            let octets = SignalMessage(sequence: sequence, make(cookie)).octets
            var peer = sockaddr_in()
            peer.sin_family = sa_family_t(AF_INET)
            peer.sin_port = port.bigEndian
            peer.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
            _ = withUnsafePointer(to: &peer) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    sendto(descriptor, octets, octets.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            guard let buffer = receiveAnswer(to: first...sequence) else { continue }
            guard case .message(let answer, _)? = SignalDatagram.decode(buffer).first else {
                return (ResponseCode(rawValue: buffer[1]), nil)
            }
            if answer.code == .cookieRequired { cookie = answer.cookie } else { return (answer.code, answer) }
        }
        throw ControlError("imsd did not answer")
    }

    /// - Returns: `nil` if none comes for a while.
    private func receiveAnswer(to sequences: ClosedRange<UInt32>) -> [UInt8]? {
        while true {
            var buffer = [UInt8](repeating: 0, count: 2048)
            let count = recv(descriptor, &buffer, buffer.count, 0)
            guard count > 0 else { return nil }
            guard count > SignalHeader.octetsCount else { continue }
            if sequences.contains(buffer[4..<8].reduce(0) { $0 << 8 | UInt32($1) }) { return Array(buffer.prefix(count)) }
        }
    }
}

@Suite(
    "imsd as a process", .serialized,
    .enabled(if: Daemon.program != nil, "imsd is not beside the test bundle; build it with swift build --product imsd"))
struct DaemonTests {
    private let directory: TemporaryDirectory
    private let port: UInt16

    init() throws {
        directory = try TemporaryDirectory()
        // A port of its own for each run, below the ephemeral range.
        port = UInt16.random(in: 20_000...32_000)
        try TextFile.replace("\(directory.path)/ims.key", with: KeyFile.write(try key(200)), mode: 0o600)
        let text = """
            control: \(directory.path)/control.sock
            store: \(directory.path)/ims.db
            signing-key: \(directory.path)/ims.key
            listen: {port: \(port), addresses: []}
            prefixes:
              - prefix: 192.0.2.0/24
                mobile-prefixes: [198.51.100.0/24]
            dns: {resolvers: ["127.0.0.1:1"]}
            """
        try TextFile.replace("\(directory.path)/imsd.yaml", with: text, mode: 0o600)
    }

    private func start() throws -> Daemon {
        let daemon = try Daemon(["--config", "\(directory.path)/imsd.yaml"], log: "\(directory.path)/log")
        for _ in 0..<200 {
            if (try? control("status"))?["store"]?["isLoading"]?.bool == false { return daemon }
            usleep(25_000)
        }
        Issue.record("imsd did not start: \((try? TextFile.read("\(directory.path)/log")) ?? "")")
        return daemon
    }

    private func control(_ command: String, _ arguments: [String: JSONValue] = [:]) throws(ControlError) -> JSONValue {
        try ControlClient.request(JSONValue.self, path: "\(directory.path)/control.sock", command: command, arguments: arguments, daemon: "imsd")
    }

    @Test("Enrol, register, query, kill -9, start again: nothing is lost, nothing goes back, cookies stay valid")
    func restart() throws {
        let nodeKey = try key(1)
        var daemon = try start()
        let enrolled = try control(
            "enrol", ["hoa": "192.0.2.16", "prefixLength": 28, "publicKey": .string(KeyFile.write(nodeKey.publicKey))])
        let certificate = try Certificate(octets: try #require(enrolled["certificate"]?.string.flatMap { Base64.parse($0.utf8) }))
        #expect(certificate.isIssued(by: try key(200).publicKey) && certificate.nodeKey == nodeKey.publicKey)
        #expect(throws: ControlError.self) {
            try control("enrol", ["hoa": "10.0.0.1", "publicKey": .string(KeyFile.write(nodeKey.publicKey))])
        }

        let client = try Client(port: port)
        let time = SystemClock.now().wallMilliseconds
        func record(_ sequence: UInt64) throws -> EnclosedRecord {
            let locator = Locator(MobileAddress(address("198.51.100.32")), prefixLength: 124)
            let record = MappingRecord(
                hoa: home("192.0.2.16"), prefixLength: 124, sequence: sequence, lifetime: 600, issued: time, locators: [locator])
            return EnclosedRecord(mapping: try #require(record.signed(with: nodeKey)), certificate: .whole(certificate))
        }
        let newest = try record(time + 10)
        let reply = try client.ask { .imsUpdate(IMSUpdate(cookie: $0, record: newest)) }
        #expect(reply.code == .ok)
        let query: (Cookie) -> SignalMessage.Body = { .maQuery(MAQuery(cookie: $0, hoa: home("192.0.2.20"))) }
        let before = try client.ask(query)
        #expect(before.code == .ok)

        #expect(daemon.kill(SIGKILL) == -SIGKILL)
        daemon = try start()
        // The cookie of before the restart, at once.
        let cookie = try #require(before.message?.cookie)
        let after = try client.ask { _ in query(cookie) }
        guard case .maAnswer(let answer)? = after.message?.body else { return #expect(Bool(false), "no MA Answer") }
        #expect(answer.code == .ok && answer.mapping == newest.mapping && answer.certificate == certificate)
        let older = try record(time + 9)
        #expect(try client.ask { .imsUpdate(IMSUpdate(cookie: $0, record: older)) }.code == .stale)

        let shown = try control("show", ["hoa": "192.0.2.20"])
        #expect(shown["hoa"]?.string == "192.0.2.16/28" && shown["isRegisteredHere"]?.bool == true)
        #expect(try control("list")["total"]?.int == 1)
        let status = try control("status")
        #expect(status["mappings"]?.int == 1 && status["counters"]?["answered"]?["IMS Update Reply"]?["stale"]?.int == 1)
        #expect(try control("zone", ["target": "ims1.example.net."])["lines"]?.array?.isEmpty == false)
        #expect(daemon.kill(SIGTERM) == 0)
        #expect(access("\(directory.path)/control.sock", F_OK) != 0)
        let log = try TextFile.read("\(directory.path)/log")
        #expect(log.contains("refused IMS Update of 192.0.2.16/28") && log.contains("stale"))
    }

    @Test("Both families are answered from the address asked, by every thread, through a reload, and the counts add up", arguments: [1, 3])
    func threads(count: Int) throws {
        let configuration = "\(directory.path)/imsd.yaml"
        try TextFile.replace(configuration, with: try TextFile.read(configuration) + "\nthreads: \(count)\n", mode: 0o600)
        let daemon = try start()
        #expect(try control("status")["threads"]?.int == Int64(count))
        let asked = 60
        func ask(_ family: Int32, _ hoa: String) throws -> ResponseCode? {
            // Another port each time, so that the kernel spreads them over the threads.
            let descriptor = socket(family, Int32(SOCK_DGRAM.rawValue), 0)
            try #require(descriptor >= 0)
            defer { close(descriptor) }
            var patience = timeval(tv_sec: 5, tv_usec: 0)
            setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
            // Connected, so that only an answer from the address asked is received.
            var connected: Int32
            if family == AF_INET {
                var peer = sockaddr_in()
                peer.sin_family = sa_family_t(AF_INET)
                peer.sin_port = port.bigEndian
                peer.sin_addr.s_addr = UInt32(0x7F00_0002).bigEndian
                connected = withUnsafePointer(to: &peer) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
                }
            } else {
                var peer = sockaddr_in6()
                peer.sin6_family = sa_family_t(AF_INET6)
                peer.sin6_port = port.bigEndian
                peer.sin6_addr = IPAddress(high: 0, low: 1).in6
                connected = withUnsafePointer(to: &peer) {
                    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
                }
            }
            try #require(connected == 0)
            let query = SignalMessage(sequence: 7, .maQuery(MAQuery(cookie: Cookie(client: 5), hoa: home(hoa), padding: 100)))
            _ = send(descriptor, query.octets, query.octets.count, 0)
            var buffer = [UInt8](repeating: 0, count: 2048)
            let received = recv(descriptor, &buffer, buffer.count, 0)
            guard received > 0, case .message(let answer, _)? = SignalDatagram.decode(Array(buffer.prefix(received))).first else { return nil }
            return answer.code
        }
        for number in 0..<asked {
            let family = number % 2 == 0 ? AF_INET : AF_INET6
            if number == asked / 2 { daemon.signal(SIGHUP) }
            #expect(try ask(family, "192.0.2.77") == .notFound)
            #expect(try ask(family, "10.0.0.1") == .notAuthoritative)
        }
        let status = try control("status")
        #expect(status["counters"]?["received"]?["MA Query"]?.int == Int64(2 * asked))
        #expect(status["counters"]?["answered"]?["MA Answer"]?["not found"]?.int == Int64(asked))
        #expect(status["datagrams"]?["received"]?.int == Int64(2 * asked) && status["datagrams"]?["passedToCore"]?.int == 0)
        #expect(daemon.kill(SIGTERM) == 0)
    }

    @Test("--check says what is wrong and exits with 78")
    func check() throws {
        #expect(try Daemon(["--config", "\(directory.path)/imsd.yaml", "--check"], log: "\(directory.path)/log").wait() == 0)
        chmod("\(directory.path)/ims.key", 0o644)
        #expect(try Daemon(["--config", "\(directory.path)/imsd.yaml", "--check"], log: "\(directory.path)/log").wait() == 78)
        try TextFile.replace("\(directory.path)/imsd.yaml", with: "prefixes: []\nsignin-key: /x\n", mode: 0o600)
        #expect(try Daemon(["--config", "\(directory.path)/imsd.yaml", "--check"], log: "\(directory.path)/log").wait() == 78)
        let log = try TextFile.read("\(directory.path)/log")
        for part in ["is fine", "chmod 600", "imsd.yaml:2", "did you mean signing-key?", "no prefix is served"] {
            #expect(log.contains(part), "\(log)")
        }
    }

    @Test("A port in use is an error that says so")
    func portInUse() throws {
        let first = try start()
        let other = "\(directory.path)/other.yaml"
        let text = try TextFile.read("\(directory.path)/imsd.yaml").split(separator: "\n").map {
            $0.hasPrefix("control:")
                ? "control: \(directory.path)/other.sock" : $0.hasPrefix("store:") ? "store: \(directory.path)/other.db" : String($0)
        }
        try TextFile.replace(other, with: text.joined(separator: "\n"), mode: 0o600)
        #expect(try Daemon(["--config", other], log: "\(directory.path)/log2").wait() == 1)
        #expect(try TextFile.read("\(directory.path)/log2").contains("is another imsd running?"))
        #expect(first.kill(SIGTERM) == 0)
    }
}
