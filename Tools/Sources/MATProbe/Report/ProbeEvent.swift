import FoundationEssentials
import Glibc

/// Something that happened during a run: one JSON object a line in `events.jsonl`.
public struct ProbeEvent: Codable, Equatable, Sendable {
    /// How a phase, begun by a `begin` event, is judged.
    public enum Expectation: String, Codable, Sendable, CaseIterable {
        /// Both links up during the handover: nothing lost, no noticeable gap.
        case overlap
        /// The old link goes before the new one comes: traffic resumes soon after the new address is usable.
        case interruption
        /// The same between networks behind translators. Packets go through the agent there, which is busy with the handover meanwhile; and
        /// without overlap it has to ask how it is seen, and to show its peers that it is there.
        case overlapTranslated = "overlap-translated"
        case interruptionTranslated = "interruption-translated"
    }

    public var time: Nanoseconds
    /// `begin` opens a phase; `address` and `route` come from `AddressWatch`; all others are only shown.
    public var event: String
    public var text: String
    public var expect: Expectation?
    public var family: AddressFamily?
    public var interface: String?

    public init(
        time: Nanoseconds = ProbeClock.now(), event: String, text: String, expect: Expectation? = nil, family: AddressFamily? = nil,
        interface: String? = nil
    ) {
        self.time = time
        self.event = event
        self.text = text
        self.expect = expect
        self.family = family
        self.interface = interface
    }

    /// Adds one line; several processes may do so at once (O_APPEND, one write).
    public func append(to path: String) throws {
        let line = try ProbeLogFile.json(self) + "\n"
        guard let file = fopen(path, "ae") else { throw ProbeError.system("opening \(path)") }
        defer { fclose(file) }
        guard fputs(line, file) >= 0, fflush(file) == 0 else { throw ProbeError.system("writing \(path)") }
    }

    /// All events of a file in order of time; none if there is no file.
    static func read(_ path: String) throws -> [ProbeEvent] {
        guard let content = try? Data(contentsOf: URL(fileURLWithPath: path)) else { return [] }
        var events: [ProbeEvent] = []
        for (index, line) in content.split(separator: UInt8(ascii: "\n")).enumerated() {
            guard let event = try? JSONDecoder().decode(ProbeEvent.self, from: Data(line)) else {
                throw ProbeError("\(path), line \(index + 1) is no event: \(String(decoding: line, as: UTF8.self))")
            }
            events.append(event)
        }
        return events.sorted { $0.time < $1.time }
    }
}
