import MATSignal

/// The IMSs of all peers. Peers of one home network have the same, so each set stands here once and peers name it by number.
struct ServerSets: Sendable {
    struct Content: Hashable, Sendable {
        var endpoints: [Endpoint]
        var keys: [PublicKey]
    }

    static let none: UInt32 = .max

    private var contents: [Content?] = []
    private var uses: [Int] = []
    private var numbers: [Content: UInt32] = [:]
    private var free: [UInt32] = []

    var count: Int { numbers.count }

    subscript(number: UInt32) -> Content? { number < contents.count ? contents[Int(number)] : nil }

    /// The number of an equal set, with one more user.
    mutating func enter(_ content: Content) -> UInt32 {
        if let number = numbers[content] {
            uses[Int(number)] += 1
            return number
        }
        let number: UInt32
        if let reused = free.popLast() {
            number = reused
            contents[Int(number)] = content
            uses[Int(number)] = 1
        } else {
            number = UInt32(contents.count)
            contents.append(content)
            uses.append(1)
        }
        numbers[content] = number
        return number
    }

    /// A user less; the last one takes the set with it.
    mutating func leave(_ number: UInt32) {
        guard let content = self[number] else { return }
        uses[Int(number)] -= 1
        guard uses[Int(number)] == 0 else { return }
        contents[Int(number)] = nil
        numbers[content] = nil
        free.append(number)
    }
}
