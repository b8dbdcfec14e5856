import Glibc
import MATRuntime
import MATSignal

/// The addresses of this machine, as the kernel says.
enum LocalAddresses {
    static func now() -> Set<IPAddress> {
        var addresses: Set<IPAddress> = []
        forEach { address, _ in addresses.insert(address) }
        return addresses
    }

    /// The interfaces that have an address, by number.
    static func interfaces() -> Set<UInt32> {
        var names: Set<String> = []
        forEach { _, name in names.insert(name) }
        return Set(names.map { if_nametoindex($0) }.filter { $0 != 0 })
    }

    private static func forEach(_ body: (IPAddress, String) -> Void) {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return }
        defer { freeifaddrs(first) }
        var next = first
        while let interface = next {
            next = interface.pointee.ifa_next
            guard let name = interface.pointee.ifa_addr, let label = interface.pointee.ifa_name else { continue }
            switch Int32(name.pointee.sa_family) {
            case AF_INET:
                name.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                    body(IPAddress(ipv4: UInt32(bigEndian: $0.pointee.sin_addr.s_addr)), String(cString: label))
                }
            case AF_INET6:
                name.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) {
                    body(IPAddress($0.pointee.sin6_addr), String(cString: label))
                }
            default: break
            }
        }
    }
}
