import Glibc
import MATRuntime
import MATSignal

/// The addresses of this machine, as the kernel says.
enum LocalAddresses {
    static func now() -> Set<IPAddress> {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return [] }
        defer { freeifaddrs(first) }
        var addresses: Set<IPAddress> = []
        var next = first
        while let interface = next {
            next = interface.pointee.ifa_next
            guard let name = interface.pointee.ifa_addr else { continue }
            switch Int32(name.pointee.sa_family) {
            case AF_INET:
                name.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                    _ = addresses.insert(IPAddress(ipv4: UInt32(bigEndian: $0.pointee.sin_addr.s_addr)))
                }
            case AF_INET6:
                name.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { _ = addresses.insert(IPAddress($0.pointee.sin6_addr)) }
            default: break
            }
        }
        return addresses
    }
}
