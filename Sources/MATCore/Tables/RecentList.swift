/// The last things that happened, for people who look on; older ones are forgotten.
package struct RecentList<Element: Sendable>: Sendable {
    private let entriesMax: Int
    private var entries: [Element] = []
    /// Where the next goes, once there are as many as may be.
    private var oldest = 0

    package init(entriesMax: Int) { self.entriesMax = max(1, entriesMax) }

    package mutating func add(_ element: Element) {
        guard entries.count == entriesMax else { return entries.append(element) }
        entries[oldest] = element
        oldest = (oldest + 1) % entriesMax
    }

    /// The latest first.
    package var latest: [Element] { Array((entries[oldest...] + entries[..<oldest]).reversed()) }
}
