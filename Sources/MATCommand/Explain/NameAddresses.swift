import CLinux
import Glibc
import MATSignal

/// The addresses of a host's name, as the system's resolver gives them to any program.
enum NameAddresses {
    /// Whether a person may mean a host's name by it.
    static func isName(_ word: String) -> Bool {
        word.contains { $0.isLetter } && word.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == "." || $0 == "_") }
    }

    static func of(_ name: String) throws(CommandFailure) -> [IPAddress] {
        do throws(Unknown) { return try find(name) } catch {
            throw CommandFailure("\(name) has no address here: \(error.reason); give an address, or `getent hosts \(name)`")
        }
    }

    struct Unknown: Error {
        /// The C library's words.
        let reason: String
    }

    static func find(_ name: String) throws(Unknown) -> [IPAddress] {
        var hints = addrinfo()
        // One of the kinds, or each address comes once for each.
        hints.ai_socktype = Int32(SOCK_DGRAM.rawValue)
        var first: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(name, nil, &hints, &first)
        guard status == 0 else { throw Unknown(reason: String(cString: gai_strerror(status))) }
        defer { freeaddrinfo(first) }
        var addresses: [IPAddress] = []
        var next = first
        while let entry = next?.pointee {
            next = entry.ai_next
            if let address = entry.ai_addr.flatMap(SocketAddress.address), !addresses.contains(address) { addresses.append(address) }
        }
        return addresses
    }
}
