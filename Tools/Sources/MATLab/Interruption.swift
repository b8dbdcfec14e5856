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

    /// To be called before any other thread is begun, so that all of them have these signals blocked.
    public static func watch() {
        ignore()
        _ = JoinableThread {
            while true { taken.store(EndingSignals.wait(), ordering: .relaxed) }
        }
    }

    /// Nobody ends this thread from now on.
    public static func ignore() { EndingSignals.block() }

    package static func check() throws(LabError) {
        if let signal { throw LabError("interrupted by signal \(signal)") }
    }
}
