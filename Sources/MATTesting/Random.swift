import SeededRandom

/// For tests that import no more than this module.
public typealias SeededGenerator = SeededRandom.SeededGenerator
