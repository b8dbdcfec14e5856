import FoundationEssentials
import Glibc

/// A log file: the first line is `mat-probe KIND HEADER` with the summary as JSON, then one line of numbers per sample.
enum ProbeLogFile {
    static func write(_ path: String, kind: String, header: some Encodable, lines: (inout String) -> Void) throws {
        var text = "mat-probe \(kind) \(try json(header))\n"
        lines(&text)
        do {
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        } catch {
            throw ProbeError("\(path) cannot be written: \(error)")
        }
    }

    static func json(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }

    /// The kind and header of a file, and its numbers line by line; nil: not a log of this program.
    static func read(_ path: String) -> (kind: String, header: Data, samples: [[Int64]])? {
        guard let content = try? Data(contentsOf: URL(fileURLWithPath: path)) else { return nil }
        let lines = content.split(separator: UInt8(ascii: "\n"))
        guard let first = lines.first else { return nil }
        let words = first.split(separator: UInt8(ascii: " "), maxSplits: 2)
        guard words.count == 3, words[0].elementsEqual("mat-probe".utf8) else { return nil }
        let samples = lines.dropFirst().map { line in
            line.split(separator: UInt8(ascii: " ")).compactMap { Int64(String(decoding: $0, as: UTF8.self)) }
        }
        return (String(decoding: words[1], as: UTF8.self), Data(words[2]), samples)
    }
}

/// What one side of a probe stream saw.
public struct StreamLog: Sendable {
    public enum Role: String, Codable, Sendable { case client, server }

    public struct Header: Codable, Sendable {
        public var role: Role
        public var family: AddressFamily
        public var intervalMicroseconds: Int64
        public var started: Nanoseconds
        public var answeredAfterMilliseconds: Double
        public var hasRealTimePriority: Bool
        /// Probes this side sent, with those that the system refused to send.
        public var sent: UInt64
        public var sendErrors: UInt64
        public var lastSendError: String?
        public var largestSendDelayMilliseconds: Double
        /// What arrived here.
        public var inbound: StreamAnalysis
    }

    public var header: Header
    public var receptions: [Reception]

    public func summary() throws -> String { try ProbeLogFile.json(header) }

    public func write(to path: String) throws {
        try ProbeLogFile.write(path, kind: "stream", header: header) { text in
            for reception in receptions { text += "\(reception.number) \(reception.sent) \(reception.received)\n" }
        }
    }

    /// nil: not such a log. Broken lines (a full disk) are left out.
    init?(header: Data, samples: [[Int64]]) {
        guard let header = try? JSONDecoder().decode(Header.self, from: header) else { return nil }
        self.header = header
        receptions = samples.compactMap { sample in
            guard sample.count == 3, let number = UInt64(exactly: sample[0]) else { return nil }
            return Reception(number: number, sent: sample[1], received: sample[2])
        }
    }

    init(header: Header, receptions: [Reception]) {
        self.header = header
        self.receptions = receptions
    }
}

/// What one side of a bulk transfer saw.
public struct TransferLog: Sendable {
    /// Octets that went through by a time.
    public struct Progress: Equatable, Sendable {
        public var time: Nanoseconds
        public var octets: UInt64
    }

    public struct Header: Codable, Sendable {
        public var role: StreamLog.Role
        public var family: AddressFamily
        public var isSender: Bool
        public var started: Nanoseconds
        public var ended: Nanoseconds
        public var octets: UInt64
        /// The receiver got everything the sender sent, and both closed in order.
        public var isComplete: Bool
        public var isReset: Bool
        public var failure: String?
        public var longestStallMilliseconds: Double
        public var longestStallFrom: Nanoseconds
    }

    public var header: Header
    public var progress: [Progress]

    public func summary() throws -> String { try ProbeLogFile.json(header) }

    public func write(to path: String) throws {
        try ProbeLogFile.write(path, kind: "tcp", header: header) { text in
            for step in progress { text += "\(step.time) \(step.octets)\n" }
        }
    }

    /// nil: not such a log.
    init?(header: Data, samples: [[Int64]]) {
        guard let header = try? JSONDecoder().decode(Header.self, from: header) else { return nil }
        self.header = header
        progress = samples.compactMap { sample in
            guard sample.count == 2, let octets = UInt64(exactly: sample[1]) else { return nil }
            return Progress(time: sample[0], octets: octets)
        }
    }

    init(header: Header, progress: [Progress]) {
        self.header = header
        self.progress = progress
    }
}
