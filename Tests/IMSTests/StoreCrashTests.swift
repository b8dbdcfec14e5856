import Glibc
import MATRuntime
import MATSignal
import MATTesting
import Testing

@testable import IMS
@testable import IMSCore

/// Updates of several mobile networks over loopback, as fast as imsd takes them, and what it acknowledged.
private final class Updater {
    private let descriptor: Int32
    private let port: UInt16
    private let node: SigningKey
    private let certificates: [Certificate]
    private var cookie = Cookie(client: 1)
    private var sequence: UInt64
    private var sent: [UInt32: (network: Int, sequence: UInt64)] = [:]
    private var lastNumber: UInt32 = 0
    /// The newest sequence of each network that was acknowledged with ok.
    private(set) var acknowledged: [UInt64]
    private(set) var okCount = 0
    /// Codes other than ok, and the texts that came with them.
    private(set) var refusals: [(code: UInt8, text: String)] = []

    static let networksCount = 12

    init(port: UInt16, issuer: SigningKey) throws {
        self.port = port
        node = try key(1)
        let now = SystemClock.now().wallMilliseconds
        sequence = now
        let nodeKey = node.publicKey
        certificates = try (0..<Self.networksCount).map { number in
            try #require(
                Certificate(
                    issuing: Self.hoa(number), prefixLength: 124, nodeKey: nodeKey, notBefore: now - 1000, notAfter: now + 86_400_000,
                    with: issuer))
        }
        acknowledged = [UInt64](repeating: 0, count: Self.networksCount)
        descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        try #require(descriptor >= 0)
        var peer = sockaddr_in()
        peer.sin_family = sa_family_t(AF_INET)
        peer.sin_port = port.bigEndian
        peer.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        // Not connected: while imsd is down that would make errors of what is only lost.
        self.peer = peer
    }

    private let peer: sockaddr_in
    deinit { close(descriptor) }

    static func hoa(_ number: Int) -> HomeAddress { HomeAddress(IPAddress(ipv4: 0xC000_0200 + UInt32(number) * 16)) }

    private func send(_ octets: [UInt8]) {
        var peer = peer
        _ = withUnsafePointer(to: &peer) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                sendto(descriptor, octets, octets.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    private func receive(within milliseconds: Int32) -> [UInt8]? {
        var poll = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard Glibc.poll(&poll, 1, milliseconds) > 0 else { return nil }
        var buffer = [UInt8](repeating: 0, count: 2048)
        let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        return count >= SignalHeader.octetsCount ? Array(buffer.prefix(count)) : nil
    }

    /// One update of each network.
    func sendAll() throws {
        sequence += 1
        for (number, certificate) in certificates.enumerated() {
            let locator = Locator(MobileAddress(IPAddress(ipv4: 0xC633_6400 + UInt32(number) * 16)), prefixLength: 124)
            let record = MappingRecord(
                hoa: Self.hoa(number), prefixLength: 124, sequence: sequence, lifetime: 600, issued: sequence, locators: [locator])
            let enclosed = EnclosedRecord(mapping: try #require(record.signed(with: node)), certificate: .whole(certificate))
            lastNumber += 1
            sent[lastNumber] = (number, sequence)
            send(SignalMessage(sequence: lastNumber, .imsUpdate(IMSUpdate(cookie: cookie, record: enclosed))).octets)
        }
    }

    /// Receives answers until none has come for so long.
    func receiveAnswers(patience milliseconds: Int32) {
        while let octets = receive(within: milliseconds) {
            let number = octets[4..<8].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            guard octets[0] == MessageType.imsUpdateReply.rawValue, let update = sent.removeValue(forKey: number) else { continue }
            if octets[1] == 0 {
                okCount += 1
                acknowledged[update.network] = max(acknowledged[update.network], update.sequence)
            } else if octets[1] == ResponseCode.cookieRequired.rawValue {
                if case .message(let message, _)? = SignalDatagram.decode(octets).first { cookie = message.cookie }
            } else {
                refusals.append((octets[1], String(decoding: octets.filter { (32..<127).contains($0) }, as: UTF8.self)))
            }
        }
    }

    func forgetRefusals() { refusals = [] }

    /// What imsd serves for a network; `nil` if it doesn't answer in time.
    func served(_ number: Int) throws -> (code: ResponseCode, sequence: UInt64)? {
        for _ in 0..<40 {
            lastNumber += 1
            send(SignalMessage(sequence: lastNumber, .maQuery(MAQuery(cookie: cookie, hoa: Self.hoa(number)))).octets)
            while let octets = receive(within: 100) {
                guard case .message(let message, _)? = SignalDatagram.decode(octets).first, message.sequence == lastNumber,
                    case .maAnswer(let answer) = message.body
                else { continue }
                if answer.code == .cookieRequired { cookie = answer.cookie }
                if answer.code == .cookieRequired || answer.code == .tryLater { break }
                return (answer.code, answer.mapping?.record.sequence ?? 0)
            }
        }
        return nil
    }
}

@Suite(
    "imsd's store, killed and starved", .serialized,
    .enabled(if: Daemon.program != nil, "imsd is not beside the test bundle; build it with swift build --product imsd"))
struct StoreCrashTests {
    private let directory: TemporaryDirectory
    private let port: UInt16
    private let issuer: SigningKey

    init() throws {
        directory = try TemporaryDirectory()
        issuer = try key(200)
        port = UInt16.random(in: 20_000...32_000)
        try TextFile.replace("\(directory.path)/ims.key", with: KeyFile.write(issuer), mode: 0o600)
        try configure(store: "\(directory.path)/ims.db")
    }

    private func configure(store: String) throws {
        let text = """
            control: \(directory.path)/control.sock
            store: \(store)
            signing-key: \(directory.path)/ims.key
            listen: {port: \(port)}
            prefixes:
              - prefix: 192.0.2.0/24
                mobile-prefixes: [198.51.100.0/24]
            dns: {resolvers: ["127.0.0.1:1"]}
            limits: {updates-per-second: 100000, verifications-per-second: 100000}
            """
        try TextFile.replace("\(directory.path)/imsd.yaml", with: text, mode: 0o600)
    }

    private func status() -> JSONValue? {
        try? ControlClient.request(JSONValue.self, path: "\(directory.path)/control.sock", command: "status", daemon: "imsd")
    }

    private func start(wrapper: [String] = []) throws -> Daemon {
        let daemon = try Daemon(["--config", "\(directory.path)/imsd.yaml"], log: "\(directory.path)/log", wrapper: wrapper)
        for _ in 0..<800 {
            if status()?["store"]?["isLoading"]?.bool == false { return daemon }
            usleep(25_000)
        }
        Issue.record("imsd did not start: \((try? TextFile.read("\(directory.path)/log")) ?? "")")
        return daemon
    }

    @Test("Killed at any moment: every acknowledged update is there after the restart, and nothing older is served")
    func kill() throws {
        let updater = try Updater(port: port, issuer: issuer)
        var numbers = SeededGenerator(seed: UInt64(port))
        for round in 0..<6 {
            let daemon = try start()
            for number in 0..<Updater.networksCount where updater.acknowledged[number] > 0 {
                let served = try updater.served(number)
                #expect(served?.code == .ok && (served?.sequence ?? 0) >= updater.acknowledged[number], "round \(round), network \(number)")
            }
            // The first brings the cookie.
            try updater.sendAll()
            updater.receiveAnswers(patience: 200)
            let bursts = Int.random(in: 3...20, using: &numbers)
            for _ in 0..<bursts {
                try updater.sendAll()
                updater.receiveAnswers(patience: 5)
            }
            if round % 2 == 0 {
                // In the middle of a burst; answers that had left count.
                try updater.sendAll()
                usleep(UInt32.random(in: 0...4000, using: &numbers))
                #expect(daemon.kill(SIGKILL) == -SIGKILL)
                updater.receiveAnswers(patience: 50)
            } else {
                // What a power failure right after an answer would find, as far as that can be had without one: the files as they are at
                // that moment, without the memory that connections share and without a closing.
                updater.receiveAnswers(patience: 100)
                try updater.sendAll()
                updater.receiveAnswers(patience: 20)
                Glibc.kill(daemon.pid, SIGSTOP)
                let acknowledged = updater.acknowledged
                for suffix in ["", "-wal"] where access("\(directory.path)/ims.db\(suffix)", F_OK) == 0 {
                    try StoreFile.copy("\(directory.path)/ims.db\(suffix)", to: "\(directory.path)/copy.db\(suffix)")
                }
                #expect(daemon.kill(SIGKILL) == -SIGKILL)
                let database = try MappingDatabase(path: "\(directory.path)/copy.db")
                let copy = try StoreFile.read("\(directory.path)/copy.db")
                database.close()
                for mapping in copy.mappings {
                    let network = try #require((0..<Updater.networksCount).first { Updater.hoa($0) == mapping.record.hoa })
                    #expect(mapping.record.sequence >= acknowledged[network])
                }
                #expect(copy.mappings.count == Updater.networksCount && copy.damage.isEmpty)
            }
        }
        #expect(updater.okCount > 100, "\(updater.okCount)")
    }

    @Test("The log is synced to the disk before the answer leaves")
    func sync() throws {
        guard access("/usr/bin/strace", X_OK) == 0 else { return print("skipped: strace is not installed (apt-get install strace)") }
        let trace = "\(directory.path)/trace"
        let daemon = try start(wrapper: ["/usr/bin/strace", "-D", "-f", "-y", "-o", trace, "-e", "trace=%network,fdatasync,fsync,pwrite64"])
        let updater = try Updater(port: port, issuer: issuer)
        // The first brings the cookie. Traced, everything takes long.
        for _ in 0..<20 where updater.okCount < Updater.networksCount {
            try updater.sendAll()
            updater.receiveAnswers(patience: 500)
        }
        #expect(updater.okCount >= Updater.networksCount)
        // With -D strace is imsd's descendant, and writes its last lines after it.
        _ = daemon.kill(SIGTERM)
        usleep(300_000)
        let lines = try TextFile.read(trace).split(separator: "\n").map(String.init)
        guard lines.count > 10 else { return print("skipped: strace may not trace here") }
        let answers = lines.indices.filter { (lines[$0].contains("sendmsg(") || lines[$0].contains("sendmmsg(")) && lines[$0].contains("AF_INET6") }
        let answer = try #require(answers.last, "\(lines.suffix(20).joined(separator: "\n"))")
        let written = try #require(lines[..<answer].lastIndex { $0.contains("pwrite64(") && $0.contains("ims.db-wal") })
        let synced = lines[written..<answer].contains { ($0.contains("fdatasync(") || $0.contains("fsync(")) && $0.contains("ims.db-wal") }
        #expect(synced, "\(lines[max(0, written - 2)...answer].joined(separator: "\n"))")
    }

    @Test("A disk that fills up: updates get code 7, the operator the reason, queries are answered, and it recovers when there is room")
    func fullDisk() throws {
        guard geteuid() == 0 else { return print("skipped: mounting a small tmpfs needs root") }
        let mount = "\(directory.path)/disk"
        try #require(mkdir(mount, 0o700) == 0)
        defer { rmdir(mount) }
        try configure(store: "\(mount)/ims.db")
        // A mount namespace of its own: nobody else sees the disk, and it goes with the process.
        let script = "mount -t tmpfs -o size=4m tmpfs \(mount) && exec \"$0\" \"$@\""
        let daemon = try start(wrapper: ["/usr/bin/unshare", "-m", "/bin/sh", "-c", script])
        let ballast = "/proc/\(daemon.pid)/root\(mount)/ballast"
        let updater = try Updater(port: port, issuer: issuer)
        for _ in 0..<2 {
            try updater.sendAll()
            updater.receiveAnswers(patience: 300)
        }
        #expect(updater.okCount == Updater.networksCount)

        let descriptor = open(ballast, O_WRONLY | O_CREAT, 0o600)
        try #require(descriptor >= 0)
        let block = [UInt8](repeating: 1, count: 4096)
        while write(descriptor, block, block.count) > 0 {}
        close(descriptor)
        updater.forgetRefusals()
        let texts = [StoreState.unavailableText, StoreState.notStoredText]
        func isFixed(_ refusal: (code: UInt8, text: String)) -> Bool {
            refusal.code == ResponseCode.tryLater.rawValue && texts.contains { refusal.text.contains($0) }
        }
        for _ in 0..<400 where !updater.refusals.contains(where: isFixed) {
            try updater.sendAll()
            updater.receiveAnswers(patience: 10)
        }
        #expect(updater.refusals.contains(where: isFixed), "\(updater.refusals.prefix(2))")
        // Why is for those who run the server.
        #expect(!updater.refusals.contains { $0.text.contains("disk") || $0.text.contains(".db") }, "\(updater.refusals.prefix(2))")
        let full = updater.acknowledged
        for number in 0..<Updater.networksCount { #expect(try updater.served(number)?.sequence == full[number]) }
        #expect(status()?["store"]?["unavailable"]?.string?.contains("disk is full") == true)

        unlink(ballast)
        for _ in 0..<400 where status()?["store"]?["unavailable"]?.string != nil { usleep(25_000) }
        updater.receiveAnswers(patience: 50)
        updater.forgetRefusals()
        let before = updater.okCount
        try updater.sendAll()
        updater.receiveAnswers(patience: 300)
        #expect(updater.okCount == before + Updater.networksCount && updater.refusals.isEmpty, "\(updater.refusals.prefix(2))")
        #expect(daemon.kill(SIGTERM) == 0)
        let log = try TextFile.read("\(directory.path)/log")
        #expect(log.contains("updates are refused and queries answered on") && log.contains("the store takes changes again"))
    }
}
