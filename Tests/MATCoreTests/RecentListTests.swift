import MATCore
import Testing

@Suite("The last things that happened")
struct RecentListTests {
    @Test("The latest come first, and no more are kept than may be", arguments: [1, 2, 5, 7])
    func keepsLatest(entriesMax: Int) {
        var list = RecentList<Int>(entriesMax: entriesMax)
        for number in 0..<17 {
            list.add(number)
            #expect(list.latest == Array(((number - min(number, entriesMax - 1))...number).reversed()))
        }
    }

    @Test("A list of none keeps one")
    func none() {
        var list = RecentList<Int>(entriesMax: 0)
        #expect(list.latest.isEmpty)
        list.add(1)
        list.add(2)
        #expect(list.latest == [2])
    }
}
