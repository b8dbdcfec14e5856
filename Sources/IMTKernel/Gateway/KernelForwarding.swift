import CLinux
import Glibc
import MATSignal

/// Whether this host forwards packets, which is for whoever runs it to say: it makes a host a router.
public enum KernelForwarding {
    private static func setting(_ family: AddressFamily) -> String { family == .ipv4 ? "net/ipv4/ip_forward" : "net/ipv6/conf/all/forwarding" }

    /// As `sysctl` calls it.
    public static func name(_ family: AddressFamily) -> String { setting(family).split(separator: "/").joined(separator: ".") }

    public static func isOn(_ family: AddressFamily) -> Bool { KernelSetting.digit(setting(family)) == 1 }

    /// Not the same as that it is not on: a host without the family says nothing.
    public static func isOff(_ family: AddressFamily) -> Bool { KernelSetting.digit(setting(family)) == 0 }

    public static func turnOn(_ family: AddressFamily) throws(KernelError) {
        let descriptor = mat_open("/proc/sys/\(setting(family))", O_WRONLY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { throw .system("turn on forwarding", name(family)) }
        defer { close(descriptor) }
        var octet = UInt8(ascii: "1")
        guard Glibc.write(descriptor, &octet, 1) == 1 else { throw .system("turn on forwarding", name(family)) }
    }
}
