import Glibc

/// Runs `body` in so many threads, and `writer` in this one.
func withThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void, _ writer: () -> Void) {
    final class Start: Sendable {
        let number: Int
        let body: @Sendable (Int) -> Void
        init(_ number: Int, _ body: @escaping @Sendable (Int) -> Void) { (self.number, self.body) = (number, body) }
    }
    var threads: [pthread_t] = []
    for number in 0..<count {
        var thread = pthread_t()
        let made = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                let start = Unmanaged<Start>.fromOpaque(context).takeRetainedValue()
                start.body(start.number)
                return nil
            }, Unmanaged.passRetained(Start(number, body)).toOpaque())
        if made == 0 { threads.append(thread) }
    }
    writer()
    for thread in threads { pthread_join(thread, nil) }
}
