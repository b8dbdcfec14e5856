import ArgumentParser
import Glibc
import MATControl
import MATCore
import MATRuntime
import MATSignal

struct JoinCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "join", abstract: "Make this host a node, by a token that its operator gave you.",
        discussion: """
            Makes the key, gets home addresses of both families as far as the token gives them, writes certificates and matd.yaml, starts matd's \
            unit if there is one, and waits for the first registration. A matd.yaml that is there stays: what would stand in it is printed. \
            Done again it does no harm: the same key gets the same addresses.
            """)

    @Argument(help: "The token, as `mat ims token create` prints it; - reads it from standard input.")
    var token: String

    @Option(help: ArgumentHelp("Where key, certificates and matd.yaml go.", valueName: "directory"))
    var directory = "/etc/matd"

    @Option(help: ArgumentHelp("Ask for this address, or one of this prefix.", valueName: "hoa"), transform: reading(.prefix))
    var wanted: IPPrefix?

    @Flag(help: "Write files and start nothing.")
    var noStart = false

    @Option(help: ArgumentHelp("How long to wait for the registration.", valueName: "seconds"))
    var wait = 10

    @OptionGroup var control: NodeControl

    /// What is asked for, one after the other: whatever the token gives first, then the other family. IPv6 has two kinds of unicast.
    private static let families: [(AddressFamily, [String])] = [(.ipv4, ["0.0.0.0/0"]), (.ipv6, ["2000::/3", "fc00::/7"])]

    func run() throws {
        let files = JoinFiles(directory: directory)
        let token = try Self.read(token)
        try files.makeDirectory()
        let (key, isNew) = try files.takeKey()
        let earlier = files.record()
        let madeKey = isNew || earlier?.madeKey ?? false
        // Before anything is asked: whatever happens next, `mat leave` knows whose the key is.
        if isNew {
            let record = JoinRecord(token: earlier?.token ?? token, homes: earlier?.homes ?? [], madeKey: true)
            try files.write(files.token, record.write(), .fixed(0o600))
        }
        let servers = try HostAddresses.find(token.host, port: token.port)
        let grants = try Self.grants(token, servers, key, wanted)
        var homes: [JoinedHome] = []
        for grant in grants {
            let path = files.certificate(of: grant.hoa)
            try files.write(path, KeyFile.write(grant.certificate) + "\n", .fixed(0o644))
            homes.append((grant.hoa, path))
        }
        // By another token, or for another address, it gets more; by the same one, what it has by it now.
        let isAgain = earlier?.token.id == token.id
        let before = isAgain && wanted == nil ? [] : (earlier?.homes ?? []).filter { home in !grants.contains { $0.hoa == home } }
        let record = JoinRecord(token: token, homes: before + grants.map(\.hoa), madeKey: madeKey)
        try files.write(files.token, record.write(), .fixed(0o600))
        print("this host is \(grants.map { "\($0.hoa)" }.joined(separator: " and ")), by \(token.host)")
        guard try configure(files, homes, begun: isAgain ? files.yaml(earlier?.homes ?? []) : nil, beside: before), !noStart else { return }
        try start(homes.map(\.hoa))
    }

    // MARK: The token

    static func read(_ argument: String) throws(CommandFailure) -> JoinToken {
        let text = argument == "-" ? readLine(strippingNewline: true) ?? "" : argument
        do throws(JoinToken.Malformed) {
            return try JoinToken.parse(text.filter { !$0.isWhitespace })
        } catch {
            throw CommandFailure("this is no token: \(error)")
        }
    }

    // MARK: Addresses

    private static func grants(
        _ token: JoinToken, _ servers: [Endpoint], _ key: SigningKey, _ wanted: IPPrefix?
    ) throws(CommandFailure) -> [JoinReply.Grant] {
        let first = try granted(try JoinExchange.run(token, at: servers, key: key, wanted: wanted), token, key, wanted)
        guard wanted == nil else { return [first] }
        var grants = [first]
        for (family, prefixes) in families where family != first.hoa.family {
            search: for prefix in prefixes.compactMap({ IPPrefix($0) }) {
                switch try JoinExchange.run(token, at: servers, key: key, wanted: prefix) {
                case .granted(let grant):
                    grants.append(try granted(.granted(grant), token, key, prefix))
                    break search
                // The token gives none of these.
                case .refused(.refused, _), .refused(.notAuthoritative, _): continue
                case .refused(let code, let text): tellMissing(family, text.map { "\($0.printable) (\(code))" } ?? "\(code)")
                case .silent: tellMissing(family, "\(token.host) does not answer any more")
                }
            }
        }
        return grants
    }

    private static func tellMissing(_ family: AddressFamily, _ reason: String) {
        StandardError.write("mat: no address of \(family == .ipv4 ? "IPv4" : "IPv6"): \(reason); once that has changed, `mat join` again asks for it")
    }

    /// Looks at what a server says before it is believed (section 12, "Token").
    private static func granted(
        _ outcome: LeaseRequest.Outcome, _ token: JoinToken, _ key: SigningKey, _ wanted: IPPrefix?
    ) throws(CommandFailure) -> JoinReply.Grant {
        switch outcome {
        case .silent:
            throw CommandFailure(
                "\(token.host) does not answer at port \(token.port); is imsd running there, and does UDP get through from here?")
        case .refused(let code, let text):
            throw CommandFailure("\(token.host) gives no address: \(text.map { "\($0.printable) (\(code))" } ?? "\(code)")")
        case .granted(let grant):
            let certificate = grant.certificate
            guard certificate.isIssued(by: token.server), certificate.nodeKey == key.publicKey, certificate.hoa == grant.hoa,
                wanted.map({ $0.contains(grant.hoa.address) }) ?? true
            else {
                throw CommandFailure(
                    "what answered as \(token.host) is not the server that made the token, or certified something else than was asked for; nothing was changed"
                )
            }
            return grant
        }
    }

    // MARK: matd

    /// - Returns: whether matd can be started with what stands there.
    private func configure(
        _ files: JoinFiles, _ homes: [JoinedHome], begun: String?, beside before: [HomeAddress]
    ) throws(CommandFailure) -> Bool {
        let yaml = JoinFiles.yaml(homes, key: files.key)
        guard access(files.configuration, F_OK) == 0 else {
            try files.write(files.configuration, yaml, .kept(new: 0o644))
            print("wrote \(files.configuration)")
            return true
        }
        let present = (try? TextFile.read(files.configuration)) ?? ""
        if present.hasPrefix(yaml) || JoinFiles.lists(homes.map(\.hoa), in: present) { return true }
        // As the package brings it: nothing but comments, which stay for who looks for what can be said. Or as an earlier `mat join` began it.
        var (rest, whole): (String?, String) = (nil, yaml)
        if JoinFiles.saysNothing(present) {
            rest = "\n" + present
        } else if let begun, present.hasPrefix(begun) {
            (rest, whole) = (String(present.dropFirst(begun.count)), files.yaml(before + homes.map(\.hoa)))
        }
        if let rest {
            try files.write(files.configuration, whole + rest, .kept(new: 0o644))
            print("wrote \(files.configuration)")
            return true
        }
        print("\(files.configuration) is there and stays as it is; put this into it, then start matd:\n")
        print(yaml)
        return false
    }

    private func start(_ hoas: [HomeAddress]) throws(CommandFailure) {
        guard access("/run/systemd/system", F_OK) == 0, Self.succeeds(["systemctl", "cat", "matd.service"]) else {
            print("start matd now; `mat status` says when this host is registered")
            return
        }
        guard Self.succeeds(["systemctl", "enable", "--quiet", "matd.service"]), Self.succeeds(["systemctl", "restart", "matd.service"]) else {
            throw CommandFailure("matd does not start; `journalctl -u matd` and `matd --check` say why")
        }
        let deadline = SystemClock.now().monotonic + .seconds(wait)
        var problem: String?
        while SystemClock.now().monotonic < deadline {
            if let status = try? control.request(.status, as: NodeReport.self) {
                if status.registered { return print("registered") }
                problem = status.homes.lazy.compactMap { home in home.problem.map { "\(home.address): \($0)" } }.first
            }
            usleep(100_000)
        }
        throw CommandFailure("not registered after \(wait) s\(problem.map { ": \($0)" } ?? ""); `mat status` shows how it goes on")
    }

    /// Runs a program without a shell, its output left out.
    static func succeeds(_ arguments: [String]) -> Bool {
        var child = pid_t()
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)
        var pointers = arguments.map { strdup($0) } + [nil]
        defer { for pointer in pointers { free(pointer) } }
        guard posix_spawnp(&child, arguments[0], &actions, nil, &pointers, environ) == 0 else { return false }
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0 { guard errno == EINTR else { return false } }
        return status == 0
    }
}

struct LeaveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "leave", abstract: "Undo `mat join`: withdraw, give the home addresses back, and remove what it wrote.",
        discussion: """
            matd's unit is stopped and disabled, its translation taken away, and the addresses are given back to the server that the token names. \
            If the server is not reached the files stay, so that it can be tried again; --force removes them all the same.
            """)

    @Option(help: ArgumentHelp("Where key, certificates and matd.yaml are.", valueName: "directory"))
    var directory = "/etc/matd"

    @Flag(help: "Remove the files also if the addresses could not be given back.")
    var force = false

    @OptionGroup var control: NodeControl

    func run() throws {
        let files = JoinFiles(directory: directory)
        let record = try files.recordToLeave()
        let token = record.token
        let key = try PrivateKeyFile.read(files.key)
        let certificates = try files.certificates().filter {
            $0.certificate.nodeKey == key.publicKey && record.homes?.contains($0.certificate.hoa) ?? true
        }
        if access("/run/systemd/system", F_OK) == 0 {
            _ = JoinCommand.succeeds(["systemctl", "disable", "--quiet", "--now", "matd.service"])
        }
        // It would register again, and its kernel tables keep what is no longer this host's.
        guard (try? control.request(.status, as: NodeReport.self)) == nil else {
            throw CommandFailure("matd is running; stop it, take its translation away with `matd --remove`, then try again")
        }
        let servers = force ? (try? HostAddresses.find(token.host, port: token.port)) ?? [] : try HostAddresses.find(token.host, port: token.port)
        var problems: [String] = []
        for (path, certificate) in certificates {
            if let problem = try giveBack(certificate, token, servers, key) {
                problems.append("\(certificate.hoa) is not given back: \(problem)")
                if !force { continue }
            } else {
                print("gave \(certificate.hoa) back")
            }
            unlink(path)
        }
        guard problems.isEmpty || force else { throw CommandFailure(problems.joined(separator: "; ") + "; try again, or remove all with --force") }
        for problem in problems { StandardError.write("mat: \(problem)") }
        let kept = try leaveConfiguration(files, record.homes ?? certificates.map(\.certificate.hoa))
        // Something else may name it: a configuration that was there before, or another address of the same key.
        let others = try files.certificates().contains { $0.certificate.nodeKey == key.publicKey }
        let isUsed = others || kept.contains(files.key)
        if record.madeKey, !isUsed { unlink(files.key) } else { print("\(files.key) stays: it is not for these addresses alone") }
        unlink(files.token)
        rmdir(files.directory)
    }

    /// - Returns: what stays in matd.yaml.
    private func leaveConfiguration(_ files: JoinFiles, _ homes: [HomeAddress]) throws(CommandFailure) -> String {
        let present = (try? TextFile.read(files.configuration)) ?? ""
        guard let rest = JoinFiles.left(of: present, begun: files.yaml(homes)) else {
            unlink(files.configuration)
            return ""
        }
        if rest != present { try files.write(files.configuration, rest, .kept(new: 0o644)) }
        let named = homes.filter { rest.contains("\($0)\"") }.map { "\($0)" }
        if !named.isEmpty {
            print("\(files.configuration) was there before, and stays: take \(named.joined(separator: " and ")) out of it before matd starts again")
        }
        return rest
    }

    private func giveBack(_ certificate: Certificate, _ token: JoinToken, _ servers: [Endpoint], _ key: SigningKey) throws(CommandFailure) -> String?
    {
        switch try JoinExchange.giveBack(certificate, by: token, at: servers, key: key) {
        case .granted: nil
        case .refused(let code, let text): text?.printable ?? "\(code)"
        case .silent: "\(token.host) does not answer"
        }
    }
}

extension JoinFiles {
    /// Those in the directory.
    func certificates() throws(CommandFailure) -> [(path: String, certificate: Certificate)] {
        guard let handle = opendir(directory) else { throw CommandFailure("\(SystemError("open \(directory)"))") }
        defer { closedir(handle) }
        var names: [String] = []
        while let entry = readdir(handle) {
            names.append(withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } })
        }
        return names.sorted().filter { $0.hasSuffix(".certificate") }.compactMap { name in
            let path = "\(directory)/\(name)"
            return (try? TextFile.read(path)).flatMap { KeyFile.parseCertificate($0) }.map { (path, $0) }
        }
    }
}
