import CLinux
import Glibc
import MATSignal

/// The machine's clocks. The protocol core never reads them; shells do, once per event.
public enum SystemClock {
    /// CLOCK_BOOTTIME, because a laptop's registrations age while it sleeps; CLOCK_REALTIME for the wall.
    public static func now() -> Now {
        var boot = timespec()
        var wall = timespec()
        clock_gettime(CLOCK_BOOTTIME, &boot)
        clock_gettime(CLOCK_REALTIME, &wall)
        return Now(
            monotonic: MonotonicTime(nanoseconds: Int64(boot.tv_sec) &* 1_000_000_000 &+ Int64(boot.tv_nsec)),
            wallMilliseconds: UInt64(max(0, wall.tv_sec)) &* 1000 &+ UInt64(wall.tv_nsec / 1_000_000))
    }

    /// Whether NTP keeps the wall clock right, as the kernel says: `false` after a start until it was set, after somebody set it by hand, and where
    /// a sandbox forbids to ask.
    public static var isSynchronized: Bool { mat_clock_is_synchronized() != 0 }
}
