import CLinux
import Glibc

/// The kernel's settings of one digit, which `sysctl` reads and writes as well.
enum KernelSetting {
    /// - Parameter name: with slashes, such as net/ipv4/ip_forward: links' names may have dots.
    /// - Returns: `nil` if it is something else, or can't be read.
    static func digit(_ name: String) -> UInt8? {
        let descriptor = mat_open("/proc/sys/\(name)", O_RDONLY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var digit: UInt8 = 0
        guard read(descriptor, &digit, 1) == 1, (48...57).contains(digit) else { return nil }
        return digit - 48
    }
}
