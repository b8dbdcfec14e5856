/// The prefix lengths in use in a table, longest first: what to try for a longest-prefix match. Nearly always 128 alone, so that a
/// match is one look-up; never more than there are lengths, whoever chose the prefixes.
package struct PrefixLengths: Sendable {
    private var counts = [Int](repeating: 0, count: 129)
    package private(set) var descending: [UInt8] = []

    package init() {}

    package mutating func add(_ length: UInt8) {
        let place = Int(min(length, 128))
        counts[place] += 1
        if counts[place] == 1 { descending = (descending + [UInt8(place)]).sorted(by: >) }
    }

    package mutating func remove(_ length: UInt8) {
        let place = Int(min(length, 128))
        guard counts[place] > 0 else { return }
        counts[place] -= 1
        if counts[place] == 0 { descending.removeAll { $0 == UInt8(place) } }
    }
}
