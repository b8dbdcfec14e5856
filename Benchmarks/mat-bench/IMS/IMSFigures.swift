import BenchSupport

/// One figure: what, in which unit, and the values of the rounds.
struct IMSFigure: Codable {
    var group: String
    var name: String
    var unit: String
    var values: [Double]
    /// What it should be, and whether it is.
    var goal: String?
    var isMet: Bool?
    /// What a reader needs to know beside the figure.
    var note: String?

    var median: Double { values.median }
}

/// All that was measured, in the order of the table.
struct IMSFigures: Codable {
    private(set) var all: [IMSFigure] = []
    private(set) var failures: [String: String] = [:]

    /// Adds a value of one round.
    mutating func add(_ group: String, _ name: String, _ value: Double, _ unit: String, note: String? = nil) {
        if let index = all.firstIndex(where: { $0.group == group && $0.name == name }) {
            all[index].values.append(value)
        } else {
            all.append(IMSFigure(group: group, name: name, unit: unit, values: [value], note: note))
        }
    }

    mutating func fail(_ group: String, _ reason: String) { failures[group] = reason }

    func median(_ group: String, _ name: String) -> Double? { all.first { $0.group == group && $0.name == name }?.median }

    /// The ratio of two figures round by round, as a figure of its own.
    mutating func compare(_ group: String, _ name: String, to other: String, as title: String) {
        guard let mine = all.first(where: { $0.group == group && $0.name == name })?.values,
            let theirs = all.first(where: { $0.group == group && $0.name == other })?.values
        else { return }
        for (a, b) in zip(mine, theirs) where b > 0 { add(group, title, a / b, "ratio") }
    }

    mutating func goal(_ group: String, _ name: String, atLeast value: Double) { goal(group, name, ">= \(plain(value))") { $0 >= value } }
    mutating func goal(_ group: String, _ name: String, atMost value: Double) { goal(group, name, "<= \(plain(value))") { $0 <= value } }

    private mutating func goal(_ group: String, _ name: String, _ text: String, _ isMet: (Double) -> Bool) {
        guard let index = all.firstIndex(where: { $0.group == group && $0.name == name }) else { return }
        all[index].goal = text
        all[index].isMet = isMet(all[index].median)
    }

    private func plain(_ value: Double) -> String { value == value.rounded() ? number(value, 0) : number(value, 2) }
}
