import CNamespaces
import Glibc

/// One host: a network namespace with a name, so that `ip netns exec` reaches it too. It goes with this value, and with it its links.
///
/// Several that belong together have a name's beginning in common, and after it the id of the process that made them
/// (`PREFIX-PID-...`): what a killed process left is recognised by that (`removeStale`).
public final class Namespace: Sendable {
    public let name: String
    private let descriptor: Int32

    /// Makes the namespace, with its loopback interface up and without duplicate address detection, which would keep each of its hosts
    /// silent for a second.
    ///
    /// - Parameter name: of its own; one that is there already is an error.
    public init(_ name: String) throws(ShellError) {
        self.name = name
        // Noted before it is there: a signal may come right after.
        CleanUp.shared.note(namespace: name)
        do throws(ShellError) { try Self.make([name]) } catch {
            CleanUp.shared.forget(namespace: name)
            throw error
        }
        descriptor = open(Self.path(name), O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw ShellError("open the namespace \(name): \(String(cString: strerror(errno)))") }
        try set(["net.ipv6.conf.default.accept_dad": "0", "net.ipv6.conf.all.accept_dad": "0"])
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
        Self.remove(name)
        CleanUp.shared.forget(namespace: name)
    }

    /// Moves the calling thread into the namespace, for good: what it opens from now on is the host's.
    public func enter() throws(ShellError) { try Self.enter(descriptor, name) }

    /// Runs `body` in a thread that has entered the namespace, and waits for it. Sockets made there stay there, whoever uses them later.
    public func inside<T>(_ body: @escaping () throws -> T) throws -> T { try Self.inside(name, body) }

    /// Settings of the kernel (sysctl), by their names with dots.
    public func set(_ settings: [String: String]) throws(ShellError) { try Self.set(settings, in: name) }

    /// Makes the host a router, in both families.
    public func forward() throws(ShellError) { try set(Self.forwarding) }

    /// A shell command in the namespace.
    @discardableResult
    public func run(_ command: String, input: String? = nil, within seconds: Double = 300) throws(ShellError) -> String {
        try shell("ip netns exec \(name) \(command)", input: input, within: seconds)
    }

    /// Like `run`, but the exit status is part of the answer.
    public func attempt(_ command: String) -> (status: Int32, output: String) { shellStatus("ip netns exec \(name) \(command)") }

    @discardableResult
    public func ip(_ arguments: String) throws(ShellError) -> String { try shell("ip -n \(name) \(arguments)") }

    /// Many `ip` commands in one process: a hundred thousand addresses would take minutes one by one.
    public func ipBatch(_ lines: [String]) throws(ShellError) { try Self.ipBatch(lines, in: name) }

    /// A link between this host and another: both ends, up.
    public func connect(_ device: String, to other: Namespace, _ otherDevice: String) throws(ShellError) {
        try ipBatch(["link add \(device) type veth peer name \(otherDevice) netns \(other.name)"])
        try ipBatch(["link set \(device) up"])
        try other.ipBatch(["link set \(otherDevice) up"])
    }

    /// A default route in the family of the gateway.
    public func addDefaultRoute(via gateway: String, dev device: String, metric: Int? = nil) throws(ShellError) {
        try ipBatch(["route add default via \(gateway) dev \(device)" + (metric.map { " metric \($0)" } ?? "")])
    }

    /// Addresses with their lengths, usable at once.
    public func add(_ addresses: [String], dev device: String) throws(ShellError) {
        try ipBatch(addresses.map { Self.addressLine($0, dev: device) })
    }
}

// MARK: By name

/// For namespaces that outlive the program that makes them.
extension Namespace {
    /// The settings of a host that forwards.
    public static let forwarding = ["net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"]

    /// The line for `ipBatch` that gives a device an address with its length, usable at once.
    public static func addressLine(_ address: String, dev device: String, replaces: Bool = false) -> String {
        "address \(replaces ? "replace" : "add") \(address) dev \(device)" + (address.contains(":") ? " nodad" : "")
    }

    public static func path(_ name: String) -> String { "/run/netns/\(name)" }
    public static func exists(_ name: String) -> Bool { access(path(name), F_OK) == 0 }

    /// All that there are.
    public static func names() -> [String] {
        guard let directory = opendir("/run/netns") else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// Makes namespaces whose loopback interface is up: all of them, or none.
    public static func make(_ names: [String]) throws(ShellError) {
        var made: [String] = []
        do throws(ShellError) {
            for name in names {
                try ipBatch(["netns add \(name)"])
                made.append(name)
                try ipBatch(["link set lo up"], in: name)
            }
        } catch {
            for name in made { remove(name) }
            throw error
        }
    }

    /// Removes a namespace, and with it its links. Nothing happens if there is none.
    public static func remove(_ name: String) {
        if exists(name) { _ = try? runCommand(["ip", "netns", "delete", name]) }
    }

    /// `ip` commands, in one process, each in the namespace; where it is `nil`, in this program's.
    ///
    /// - Parameter family: `-4` or `-6`, for commands whose words do not tell.
    public static func ipBatch(_ lines: [String], in name: String? = nil, family: String? = nil) throws(ShellError) {
        let text = lines.joined(separator: "\n") + "\n"
        let result = try runCommand(["ip"] + (family.map { [$0] } ?? []) + (name.map { ["-n", $0] } ?? []) + ["-batch", "-"], input: text)
        guard result.status == 0 else {
            throw ShellError("ip\(name.map { " -n \($0)" } ?? ""): exit \(result.status): \(result.output.prefix(2000)); of: \(text.prefix(2000))")
        }
    }

    /// Processes that are in the namespace.
    public static func processes(in name: String) -> [pid_t] {
        let list = (try? runCommand(["ip", "netns", "pids", name]))?.output ?? ""
        return list.split(separator: "\n").compactMap { pid_t($0) }
    }

    public static func set(_ settings: [String: String], in name: String) throws(ShellError) {
        do {
            try inside(name) {
                for (key, value) in settings.sorted(by: { $0.key < $1.key }) {
                    let path = "/proc/sys/" + key.split(separator: ".", omittingEmptySubsequences: false).joined(separator: "/")
                    try write(value, to: path)
                }
            }
        } catch {
            throw ShellError("settings of \(name): \(error)")
        }
    }

    private static func write(_ value: String, to path: String) throws(ShellError) {
        let file = open(path, O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { throw ShellError("open \(path): \(String(cString: strerror(errno)))") }
        defer { close(file) }
        let octets = Array(value.utf8)
        guard Glibc.write(file, octets, octets.count) == octets.count else {
            throw ShellError("write \(value) to \(path): \(String(cString: strerror(errno)))")
        }
    }

    /// Moves the calling thread into a namespace, for good.
    public static func enter(_ name: String) throws(ShellError) {
        let descriptor = open(path(name), O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw ShellError("open the namespace \(name): \(String(cString: strerror(errno)))") }
        defer { close(descriptor) }
        try enter(descriptor, name)
    }

    private static func enter(_ descriptor: Int32, _ name: String) throws(ShellError) {
        guard namespaces_enter_network(descriptor) == 0 else { throw ShellError("enter \(name): \(String(cString: strerror(errno)))") }
    }

    /// Runs `body` in a thread that has entered a namespace, and waits for it.
    public static func inside<T>(_ name: String, _ body: @escaping () throws -> T) throws -> T {
        nonisolated(unsafe) var result: Result<T, any Error>?
        nonisolated(unsafe) let work = body
        let thread = JoinableThread {
            result = Result {
                try enter(name)
                return try work()
            }
        }
        thread.join()
        guard let result else { throw ShellError("no thread") }
        return try result.get()
    }

    /// Removes what was left by processes that are gone, of those whose names begin so, followed by the process's id.
    public static func removeStale(prefix: String) {
        for name in names() where name.hasPrefix(prefix) {
            let owner = pid_t(name.dropFirst(prefix.count).prefix { $0 != "-" }) ?? 0
            if owner > 0, kill(owner, 0) != 0, errno == ESRCH { remove(name) }
        }
    }
}
