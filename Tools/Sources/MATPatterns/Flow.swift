/// One direction of a stream of numbered packets: when each was sent, and when it arrived. All times are nanoseconds of one monotonic clock.
public struct Flow: Sendable {
    private var sent: [Int64] = []
    /// 0: not yet.
    private var arrived: [Int64] = []
    /// In order of arrival.
    private var arrivals: [Int64] = []

    public init() {}

    /// - Returns: the packet's number.
    public mutating func send(at time: Int64) -> Int {
        sent.append(time)
        arrived.append(0)
        return sent.count - 1
    }

    public mutating func arrive(_ number: Int, at time: Int64) {
        guard arrived.indices.contains(number), arrived[number] == 0 else { return }
        arrived[number] = time
        arrivals.append(time)
    }

    public var arrivedCount: Int { arrivals.count }

    /// When the first packet arrived that was sent at this time or later.
    public func resumption(after time: Int64) -> Int64? {
        (firstSent(after: time)..<sent.count).lazy.map { arrived[$0] }.filter { $0 > 0 }.min()
    }

    /// Packets sent in a span of time that have not arrived.
    public func lost(from begin: Int64, to end: Int64) -> Int {
        (firstSent(after: begin)..<firstSent(after: end)).count { arrived[$0] == 0 }
    }

    /// Packets sent in a span of time.
    public func count(from begin: Int64, to end: Int64) -> Int { firstSent(after: end) - firstSent(after: begin) }

    /// The longest time without an arrival in a span, which is bounded by arrivals or by the span's ends.
    public func longestGap(from begin: Int64, to end: Int64) -> Int64 {
        // Backwards, since what is asked about is at the end.
        var next = end
        var longest: Int64 = 0
        for time in arrivals.reversed() {
            if time < begin { break }
            if time > end { continue }
            longest = max(longest, next - time)
            next = time
        }
        return max(longest, next - begin)
    }

    private func firstSent(after time: Int64) -> Int {
        var (low, high) = (0, sent.count)
        while low < high {
            let middle = (low + high) / 2
            if sent[middle] < time { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

/// One direction of a byte stream, whose octets tell their own place: nothing may be missing, doubled or of another connection.
public struct StreamCheck: Sendable {
    public private(set) var written: UInt64 = 0
    public private(set) var read: UInt64 = 0
    public private(set) var isDamaged = false
    private var marks: [(octet: UInt64, time: Int64)] = []
    private var readings: [(octet: UInt64, time: Int64)] = []

    public init() {}

    /// The octets to write next.
    public func next(_ count: Int) -> [UInt8] { (0..<UInt64(count)).map { Self.octet(at: written + $0) } }

    public mutating func wrote(_ count: Int, at time: Int64) {
        marks.append((written, time))
        written += UInt64(count)
    }

    public mutating func took(_ octets: some Collection<UInt8>, at time: Int64) {
        for (offset, octet) in octets.enumerated() where octet != Self.octet(at: read + UInt64(offset)) { isDamaged = true }
        read += UInt64(octets.count)
        readings.append((read, time))
    }

    public var missing: UInt64 { written - min(read, written) }

    /// When the first octet was read that was written at this time or later.
    public func resumption(after time: Int64) -> Int64? {
        guard let first = marks.first(where: { $0.time >= time })?.octet else { return nil }
        return readings.first { $0.octet > first }?.time
    }

    private static func octet(at place: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: place ^ (place >> 8) ^ (place >> 16)) }
}
