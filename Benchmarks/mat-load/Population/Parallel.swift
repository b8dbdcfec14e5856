import Dispatch
import Synchronization

/// Makes values on all cores, in order. The first error ends it.
func inParallel<T: Sendable>(_ range: Range<Int>, _ make: @Sendable (Int) throws -> T) throws -> [T] {
    let chunk = 256
    let chunks = (range.count + chunk - 1) / chunk
    let results = Mutex<[[T]?]>(Array(repeating: nil, count: chunks))
    let failure = Mutex<(any Error)?>(nil)
    DispatchQueue.concurrentPerform(iterations: chunks) { number in
        guard failure.withLock({ $0 == nil }) else { return }
        let first = range.lowerBound + number * chunk
        do {
            let made = try (first..<min(first + chunk, range.upperBound)).map(make)
            results.withLock { $0[number] = made }
        } catch {
            failure.withLock { $0 = $0 ?? error }
        }
    }
    if let error = failure.withLock({ $0 }) { throw error }
    return results.withLock { $0 }.compactMap { $0 }.flatMap { $0 }
}
