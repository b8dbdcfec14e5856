import FoundationEssentials

/// All that a run left behind: both ends' logs and what happened meanwhile.
public struct ProbeReport: Sendable {
    /// One direction of a probe stream.
    struct Direction: Sendable {
        var name: String
        var family: AddressFamily
        /// Of the receiving side.
        var log: StreamLog
        /// Probes that the sending side's system refused; nil if its log is missing.
        var sendErrors: UInt64?

        var title: String { "\(name) \(family.title)" }
        var interval: Nanoseconds { log.header.intervalMicroseconds * 1000 }
    }

    struct Transfer: Sendable {
        var name: String
        var log: TransferLog
        var title: String { "\(name) \(log.header.family.title)" }
    }

    var directions: [Direction] = []
    /// As their receivers saw them; both ends' verdicts count.
    var transfers: [Transfer] = []
    var events: [ProbeEvent] = []
    /// The zero of all times that people see.
    var origin: Nanoseconds = 0
    var end: Nanoseconds = 0

    /// Reads all `*.log` and `events.jsonl` of a directory.
    /// - Parameter names: what people call the client's and the server's host
    public init(directory: String, client: String, server: String) throws {
        let names: [String]
        do {
            names = try FileManager.default.contentsOfDirectory(atPath: directory)
        } catch {
            throw ProbeError("\(directory) cannot be read: \(error)")
        }
        var streams: [StreamLog] = []
        var transferLogs: [TransferLog] = []
        for name in names.sorted() where name.hasSuffix(".log") {
            guard let file = ProbeLogFile.read("\(directory)/\(name)") else { continue }
            switch file.kind {
            case "stream": if let log = StreamLog(header: file.header, samples: file.samples) { streams.append(log) }
            case "tcp": if let log = TransferLog(header: file.header, samples: file.samples) { transferLogs.append(log) }
            default: continue
            }
        }
        guard !streams.isEmpty || !transferLogs.isEmpty else {
            throw ProbeError("\(directory) holds no log of mat-probe stream or tcp")
        }
        self.init(
            streams: streams, transfers: transferLogs, events: try ProbeEvent.read("\(directory)/events.jsonl"), client: client, server: server)
    }

    init(streams: [StreamLog], transfers transferLogs: [TransferLog], events: [ProbeEvent], client: String, server: String) {
        self.events = events
        for family in [AddressFamily.ipv4, .ipv6] {
            let both = streams.filter { $0.header.family == family }
            for receiver in [StreamLog.Role.server, .client] {
                for log in both where log.header.role == receiver {
                    let sender = both.first { $0.header.role != receiver }
                    directions.append(
                        Direction(
                            name: receiver == .server ? "\(client) → \(server)" : "\(server) → \(client)", family: family, log: log,
                            sendErrors: sender?.header.sendErrors))
                }
            }
            var inFamily = transferLogs.filter { $0.header.family == family }
            // The receiver's log carries the picture; a fault that only the sender saw must not get lost.
            let fault = inFamily.first { $0.header.failure != nil }
            if let index = inFamily.firstIndex(where: { !$0.header.isSender }) { inFamily = [inFamily[index]] }
            for var log in inFamily.prefix(1) {
                if let fault, log.header.failure == nil {
                    log.header.failure = fault.header.failure
                    log.header.isReset = fault.header.isReset
                    log.header.isComplete = false
                }
                let isUp = (log.header.role == .client) == log.header.isSender
                transfers.append(Transfer(name: isUp ? "\(client) → \(server)" : "\(server) → \(client)", log: log))
            }
        }
        origin = (directions.map(\.log.header.started) + transfers.map(\.log.header.started)).min() ?? 0
        end = (directions.compactMap(\.log.receptions.last?.received) + transfers.map(\.log.header.ended)).max() ?? origin
    }

    /// Probes that never came, with the time they were sent: what lies between its neighbours' stamps.
    func losses(_ direction: Direction) -> [Nanoseconds] {
        var sentAt: [UInt64: Nanoseconds] = [:]
        for reception in direction.log.receptions { sentAt[reception.number] = reception.sent }
        var losses: [Nanoseconds] = []
        var last = direction.log.receptions.first.map { $0.sent - Nanoseconds(clamping: $0.number) &* direction.interval } ?? origin
        var number: UInt64 = 0
        // The header's number bounds the loop only together with this: a log is not to be trusted with our time.
        let count = min(direction.log.header.inbound.sent, UInt64(StreamRun.receptionsMax))
        while number < count {
            if let time = sentAt[number] {
                last = time
            } else {
                last += direction.interval
                losses.append(last)
            }
            number += 1
        }
        return losses
    }

    /// Consecutive receptions further apart than a limit.
    func gaps(_ direction: Direction, over milliseconds: Double) -> [Gap] {
        zip(direction.log.receptions, direction.log.receptions.dropFirst()).compactMap { first, second in
            let gap = StreamAnalysis.gap(from: first, to: second, interval: direction.interval)
            return gap.milliseconds > milliseconds ? gap : nil
        }
    }

    /// Median of what one way takes, added for both ways: both ends read the same clock.
    func roundTrip(_ family: AddressFamily) -> Nanoseconds {
        directions.filter { $0.family == family }.reduce(0) { sum, direction in
            let times = direction.log.receptions.map { $0.received - $0.sent }.sorted()
            return sum + (times.isEmpty ? 0 : times[times.count / 2])
        }
    }

    func seconds(_ time: Nanoseconds) -> Double { Double(time - origin) / 1e9 }
}

func fixed(_ value: Double, _ digits: Int) -> String {
    let scale = [1.0, 10, 100, 1000][min(3, max(0, digits))]
    let scaled = Int64((abs(value) * scale).rounded())
    let text = "\(scaled / Int64(scale))" + (digits > 0 ? "." + String("\(scaled % Int64(scale) + Int64(scale))".dropFirst()) : "")
    return value < 0 && scaled != 0 ? "-" + text : text
}
