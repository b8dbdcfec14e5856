import Glibc
import Namespaces
import Synchronization

/// SIGINT, SIGTERM and SIGHUP as an error at the next step, so that what stands half is taken down as after any other failure.
public enum Interruption {
    private static let taken = Atomic<Int32>(0)

    /// The signal, if one came.
    public static var signal: Int32? {
        let number = taken.load(ordering: .relaxed)
        return number == 0 ? nil : number
    }

    private static var signals: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&set, number) }
        return set
    }

    /// To be called before any other thread is begun, so that all of them have these signals blocked.
    public static func watch() {
        ignore()
        _ = JoinableThread {
            var set = signals
            var number: Int32 = 0
            while true {
                sigwait(&set, &number)
                taken.store(number, ordering: .relaxed)
            }
        }
    }

    /// Nobody ends this thread from now on.
    public static func ignore() {
        var set = signals
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    static func check() throws(LabError) {
        if let signal { throw LabError("interrupted by signal \(signal)") }
    }
}
