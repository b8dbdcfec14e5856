import CLinux
import Glibc
import IMTPlan

/// The file system of the host's control groups, of version 2.
///
/// Usually it is mounted. Where it is not, as under `ip netns exec`, which hides /sys, one is had that is mounted nowhere and goes with this value, as far
/// as this process may.
final class GroupMount {
    /// Without a slash at its end.
    let path: String
    private let descriptor: Int32

    /// - Returns: `nil` if there is none to be had.
    init?() {
        if let mounted = GroupPlace.mount(ProcessHandle.text("/proc/self/mountinfo")) {
            (path, descriptor) = (mounted == "/" ? "" : mounted, -1)
            return
        }
        descriptor = mat_open_control_groups()
        path = "/proc/self/fd/\(descriptor)"
        if descriptor < 0 { return nil }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }
}
