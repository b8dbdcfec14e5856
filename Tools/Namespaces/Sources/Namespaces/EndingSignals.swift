import Glibc

/// SIGINT, SIGTERM and SIGHUP, with which people and service managers end a program.
public enum EndingSignals {
    private static var all: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&set, number) }
        return set
    }

    /// They end this thread no more, nor those that it begins from now on.
    public static func block() {
        var set = all
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    /// Waits in a thread that has them blocked.
    ///
    /// - Returns: the one that came.
    public static func wait() -> Int32 {
        var set = all
        var number: Int32 = 0
        sigwait(&set, &number)
        return number
    }
}
