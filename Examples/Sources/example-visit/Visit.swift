import Glibc
import MATClient
import MATSignal

/// example-visit ADDRESS PORT [CONTROL]: talks to a TCP server from a home address of the network that this host is in. What comes from the standard
/// input goes there, and back. CONTROL: the agent's control socket, where it is not the usual one.
@main
struct Visit {
    static func main() async {
        let arguments = CommandLine.arguments
        guard arguments.count >= 3, let peer = IPAddress(arguments[1]), let port = UInt16(arguments[2]) else {
            fail("usage: example-visit ADDRESS PORT [CONTROL]", 64)
        }
        do {
            var options = MobilityClient.Options()
            if arguments.count > 3 { options.control = arguments[3] }
            let client = try MobilityClient(options)
            let home = try await client.visitedHome(peer.family)
            say("from \(home.address)")
            let connection = connect(from: home.address.address, to: peer, port)
            while let line = readLine(strippingNewline: false) {
                guard write(connection, line, line.utf8.count) == line.utf8.count else { fail("write: \(String(cString: strerror(errno)))", 1) }
                var answer = [UInt8](repeating: 0, count: 4096)
                let count = read(connection, &answer, answer.count)
                guard count > 0 else { break }
                write(STDOUT_FILENO, answer, count)
            }
            // The connection needs the address to its end.
            close(connection)
            home.giveBack()
        } catch {
            fail("\(error)", 1)
        }
    }

    /// A TCP connection from `own`, whose port the kernel chooses.
    static func connect(from own: IPAddress, to peer: IPAddress, _ port: UInt16) -> Int32 {
        let connection = socket(peer.family == .ipv4 ? AF_INET : AF_INET6, Int32(SOCK_STREAM.rawValue), 0)
        let bound = withName(own, 0) { bind(connection, $0, $1) }
        guard connection >= 0, bound == 0 else { fail("bind to \(own): \(String(cString: strerror(errno)))", 1) }
        guard withName(peer, port, { Glibc.connect(connection, $0, $1) }) == 0 else {
            fail("connect to \(peer): \(String(cString: strerror(errno)))", 1)
        }
        return connection
    }

    static func withName<Result>(_ address: IPAddress, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        var storage = sockaddr_storage()
        return withUnsafeMutableBytes(of: &storage) { octets in
            // Family, port in network order, then the address: after four octets of it in IPv4, of flow information in IPv6.
            let isIPv4 = address.family == .ipv4
            octets.storeBytes(of: sa_family_t(isIPv4 ? AF_INET : AF_INET6), as: sa_family_t.self)
            octets.storeBytes(of: port.bigEndian, toByteOffset: 2, as: UInt16.self)
            for (index, octet) in address.packetOctets.enumerated() { octets[(isIPv4 ? 4 : 8) + index] = octet }
            let count = isIPv4 ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size
            return octets.withMemoryRebound(to: sockaddr.self) { names in
                guard let name = names.baseAddress else { fail("no memory", 1) }
                return body(name, socklen_t(count))
            }
        }
    }

    static func fail(_ reason: String, _ status: Int32) -> Never {
        say("example-visit: \(reason)")
        exit(status)
    }

    static func say(_ line: String) {
        _ = write(STDERR_FILENO, line + "\n", line.utf8.count + 1)
    }
}
