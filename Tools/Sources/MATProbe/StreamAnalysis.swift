/// One probe as its receiver saw it.
public struct Reception: Equatable, Sendable {
    public var number: UInt64
    public var sent: Nanoseconds
    public var received: Nanoseconds

    public init(number: UInt64, sent: Nanoseconds, received: Nanoseconds) {
        self.number = number
        self.sent = sent
        self.received = received
    }
}

/// A time in which nothing arrived.
public struct Gap: Codable, Equatable, Sendable {
    /// Monotonic nanoseconds of the last reception before and the first after it.
    public var from: Nanoseconds
    public var to: Nanoseconds
    /// From reception to reception.
    public var milliseconds: Double
    /// The same without what the sender itself was late: what the network is to blame for.
    public var networkMilliseconds: Double
}

/// What one direction of a stream amounts to.
public struct StreamAnalysis: Codable, Equatable, Sendable {
    /// Gaps longer than this are listed one by one.
    public static let listedGapMilliseconds = 5.0
    /// A stream that stutters all the time must not make its summary grow without bound.
    public static let listedGapsMax = 1000

    /// What the peer says it sent; without its word, what the highest number received implies.
    public var sent: UInt64
    public var sentIsKnown: Bool
    public var received: UInt64
    public var lost: UInt64
    public var duplicated: UInt64
    public var reordered: UInt64
    public var largestGapMilliseconds: Double
    public var largestNetworkGapMilliseconds: Double
    public var gaps: [Gap]

    /// - Parameters:
    ///   - receptions: in order of arrival
    ///   - sent: how many the peer says it sent; nil if its word didn't arrive
    ///   - interval: between two probes as the sender means it
    public init(_ receptions: some Sequence<Reception>, sent: UInt64?, interval: Nanoseconds) {
        var seen = Set<UInt64>()
        var highest: UInt64?
        var previous: Reception?
        var duplicated: UInt64 = 0
        var reordered: UInt64 = 0
        var largest = 0.0
        var largestNetwork = 0.0
        var gaps: [Gap] = []
        for reception in receptions {
            if !seen.insert(reception.number).inserted {
                duplicated += 1
            } else if let highest, reception.number < highest {
                reordered += 1
            }
            highest = max(highest ?? 0, reception.number)
            if let previous {
                let gap = Self.gap(from: previous, to: reception, interval: interval)
                largest = max(largest, gap.milliseconds)
                largestNetwork = max(largestNetwork, gap.networkMilliseconds)
                if gap.milliseconds > Self.listedGapMilliseconds, gaps.count < Self.listedGapsMax { gaps.append(gap) }
            }
            previous = reception
        }
        let implied = highest.map { $0 &+ 1 } ?? 0
        self.sent = max(sent ?? 0, implied)
        sentIsKnown = sent != nil
        received = UInt64(seen.count)
        lost = self.sent - min(received, self.sent)
        self.duplicated = duplicated
        self.reordered = reordered
        largestGapMilliseconds = largest
        largestNetworkGapMilliseconds = largestNetwork
        self.gaps = gaps
    }

    public static func gap(from first: Reception, to second: Reception, interval: Nanoseconds) -> Gap {
        let between = second.received - first.received
        var late: Nanoseconds = 0
        if second.number > first.number, let steps = Nanoseconds(exactly: second.number - first.number) {
            let (meant, overflow) = interval.multipliedReportingOverflow(by: steps)
            if !overflow { late = max(0, second.sent - first.sent - meant) }
        }
        return Gap(
            from: first.received, to: second.received, milliseconds: Double(between) / 1e6,
            networkMilliseconds: Double(max(0, between - late)) / 1e6)
    }
}
