import Glibc
import MATRuntime
import Testing

/// A port that the kernel says is free.
enum FreePort {
    static func find(_ type: __socket_type) throws -> UInt16 {
        let descriptor = socket(AF_INET, Int32(type.rawValue), 0)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        return try bindLoopback(descriptor)
    }

    /// Binds to a port of the kernel's choice.
    static func bindLoopback(_ descriptor: Int32) throws -> UInt16 {
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        try #require(isBound)
        return UInt16(bigEndian: name.sin_port)
    }
}

/// A foreign server at a TCP port.
final class Listener {
    private let descriptor: Int32
    let port: UInt16

    init() throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        try #require(descriptor >= 0)
        port = try FreePort.bindLoopback(descriptor)
        try #require(listen(descriptor, 1) == 0)
    }

    deinit { close(descriptor) }
}

/// The notify socket that systemd gives to the services that it starts.
final class NotifySocket {
    private let descriptor: Int32

    init(path: String) throws {
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        try #require(descriptor >= 0)
        var name = sockaddr_un()
        name.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &name.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        let isBound = withUnsafePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0 }
        }
        try #require(isBound)
        var patience = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close(descriptor) }

    func next() -> String? {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        return count > 0 ? String(decoding: buffer.prefix(count), as: UTF8.self) : nil
    }
}

/// One HTTP exchange over a plain socket: a client's octets, without a library's interpretation.
struct HTTPReply {
    var status: Int
    var headers: [String: String]
    var body: String

    static func get(_ path: String, port: UInt16, method: String = "GET") throws -> HTTPReply {
        try exchange("\(method) \(path) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", port: port)
    }

    static func exchange(_ request: String, port: UInt16) throws -> HTTPReply {
        try parse(read(request, port: port) { _ in false })
    }

    /// - Returns: a connection, or -1.
    static func connect(port: UInt16) -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return -1 }
        var peer = sockaddr_in()
        peer.sin_family = sa_family_t(AF_INET)
        peer.sin_port = port.bigEndian
        peer.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let isConnected = withUnsafePointer(to: &peer) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        if isConnected { return descriptor }
        close(descriptor)
        return -1
    }

    /// What is answered, up to its end or until it is enough.
    static func read(_ request: String, port: UInt16, until isEnough: (String) -> Bool) throws -> String {
        let descriptor = connect(port: port)
        guard descriptor >= 0 else { throw ControlError("nobody listens") }
        defer { close(descriptor) }
        var patience = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        let octets = Array(request.utf8)
        guard Glibc.send(descriptor, octets, octets.count, Int32(MSG_NOSIGNAL)) == octets.count else { throw ControlError("hung up") }
        var reply: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count <= 0 { break }
            reply += buffer.prefix(count)
            if isEnough(String(decoding: reply, as: UTF8.self)) { break }
        }
        return String(decoding: reply, as: UTF8.self)
    }

    private static func parse(_ text: String) throws -> HTTPReply {
        let parts = text.split(separator: "\r\n\r\n", maxSplits: 1, omittingEmptySubsequences: false)
        var lines = try #require(parts.first).split(separator: "\r\n")
        guard !lines.isEmpty else { throw ControlError("hung up without an answer") }
        let first = lines.removeFirst()
        var headers: [String: String] = [:]
        for line in lines {
            let halves = line.split(separator: ":", maxSplits: 1)
            if halves.count == 2 { headers[halves[0].lowercased()] = String(halves[1].drop { $0 == " " }) }
        }
        let status = try #require(first.split(separator: " ").dropFirst().first.flatMap { Int($0) })
        return HTTPReply(status: status, headers: headers, body: parts.count > 1 ? String(parts[1]) : "")
    }
}

/// The exposition format, read as strictly as its description allows: each family once, its TYPE before its samples, names and label
/// names of the allowed characters, no series twice, buckets that grow and end with +Inf.
struct Exposition {
    struct Series: Hashable {
        var name: String
        var labels: [String: String]
        var family: String
    }

    private(set) var values: [Series: Double] = [:]
    private(set) var types: [String: String] = [:]

    subscript(name: String, labels: [String: String] = [:]) -> Double? {
        values.first { $0.key.name == name && $0.key.labels == labels }?.value
    }

    init(_ text: String) throws {
        #expect(text.hasSuffix("\n"))
        var family = ""
        for line in text.split(separator: "\n", omittingEmptySubsequences: true) {
            if line.hasPrefix("# HELP ") {
                try #require(Self.isName(line.split(separator: " ")[2]))
            } else if line.hasPrefix("# TYPE ") {
                let words = line.split(separator: " ")
                try #require(words.count == 4 && ["counter", "gauge", "histogram"].contains(words[3]) && Self.isName(words[2]), "\(line)")
                family = String(words[2])
                try #require(types.updateValue(String(words[3]), forKey: family) == nil, "\(family) twice")
            } else {
                let series = try Self.sample(line, family)
                let suffixes = types[family] == "histogram" ? ["_bucket", "_sum", "_count"] : [""]
                try #require(suffixes.contains { series.0.name == family + $0 }, "\(line) is not of \(family)")
                if types[family] == "counter" { try #require(family.hasSuffix("_total") && series.1 >= 0, "\(line)") }
                try #require(values.updateValue(series.1, forKey: series.0) == nil, "\(line) twice")
            }
        }
        for (family, type) in types where type == "histogram" { try checkHistogram(family) }
        for family in types.keys { try #require(values.keys.contains { $0.family == family }, "\(family) has no samples") }
    }

    private func checkHistogram(_ family: String) throws {
        let buckets = values.filter { $0.key.name == family + "_bucket" }
        let bySeries = Dictionary(grouping: buckets) { $0.key.labels.filter { $0.key != "le" } }
        for (labels, buckets) in bySeries {
            let ordered = try buckets.map { (try #require(Self.number($0.key.labels["le"] ?? "")), $0.value) }.sorted { $0.0 < $1.0 }
            try #require(ordered.last?.0 == .infinity && zip(ordered, ordered.dropFirst()).allSatisfy { $0.1 <= $1.1 }, "\(family)")
            try #require(ordered.last?.1 == self[family + "_count", labels], "\(family)")
        }
    }

    private static func sample(_ line: Substring, _ family: String) throws -> (Series, Double) {
        var labels: [String: String] = [:]
        var rest = line
        let name = rest.prefix { $0 != "{" && $0 != " " }
        try #require(isName(name), "\(line)")
        rest = rest.dropFirst(name.count)
        if rest.first == "{" {
            rest = rest.dropFirst()
            while rest.first != "}" {
                let label = rest.prefix { $0 != "=" }
                rest = rest.dropFirst(label.count)
                try #require(isName(label) && rest.hasPrefix("=\""), "\(line)")
                rest = rest.dropFirst(2)
                var value = ""
                while let character = rest.first, character != "\"" {
                    rest = rest.dropFirst()
                    if character == "\\" {
                        let escaped = try #require(rest.first)
                        try #require(["\\", "\"", "n"].contains(escaped), "\(line)")
                        value.append(escaped == "n" ? "\n" : escaped)
                        rest = rest.dropFirst()
                    } else {
                        value.append(character)
                    }
                }
                rest = rest.dropFirst()
                try #require(labels.updateValue(value, forKey: String(label)) == nil, "\(line)")
                if rest.first == "," { rest = rest.dropFirst() }
            }
            rest = rest.dropFirst()
        }
        try #require(rest.first == " ", "\(line)")
        let value = try #require(number(String(rest.dropFirst())), "\(line)")
        return (Series(name: String(name), labels: labels, family: family), value)
    }

    private static func isName(_ text: Substring) -> Bool {
        guard let first = text.first, first.isASCII, first.isLetter || first == "_" else { return false }
        return text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
    }

    private static func number(_ text: String) -> Double? { text == "+Inf" ? .infinity : Double(text) }
}

extension Client {
    /// The next datagram, within so much time.
    func receive(milliseconds: Int) -> [UInt8]? {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, Int32(clamping: milliseconds)) > 0 else { return nil }
        var buffer = [UInt8](repeating: 0, count: 2048)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        return count > 0 ? Array(buffer.prefix(count)) : nil
    }

    func send(_ octets: [UInt8]) {
        var peer = sockaddr_in()
        peer.sin_family = sa_family_t(AF_INET)
        peer.sin_port = port.bigEndian
        peer.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        _ = withUnsafePointer(to: &peer) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                sendto(descriptor, octets, octets.count, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }
}
