import MATSignal

/// What the host itself shows, without any daemon.
struct HostFacts: Hashable, Sendable {
    /// An interface with addresses of global or private scope, and where its default routes go.
    struct Interface: Hashable, Sendable {
        var name: String
        var addresses: [IPAddress]
        /// Families for which there is a default route over it.
        var hasDefaultRoute: [AddressFamily]
        /// As in /proc/sys/net/ipv4/conf: 0 off, 1 strict, 2 loose; the stricter of "all" and its own counts.
        var reversePathFilter: UInt8?
        /// In octets.
        var mtu = 1500
    }

    struct DefaultRoute: Hashable, Sendable {
        var family: AddressFamily
        var interface: String
        var router: IPAddress?
        /// Of its own, apart from the link's.
        var mtu: Int?
    }

    enum Clock: Hashable, Sendable {
        case synchronized
        /// No NTP client holds it.
        case free
    }

    enum Device: Hashable, Sendable {
        case usable
        case missing
        /// Why it can't be opened.
        case refused(String)
    }

    var clock = Clock.free
    var tunnelDevice = Device.usable
    /// Whether /sys/fs/bpf is mounted, where programs in the kernel outlive the agent.
    var hasPrograms = true
    var interfaces: [Interface] = []
    var defaultRoutes: [DefaultRoute] = []
    var resolvers: [String] = []
    var isRoot = true
}
