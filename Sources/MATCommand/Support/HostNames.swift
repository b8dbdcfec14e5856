import Dispatch
import Glibc
import MATSignal
import Synchronization

/// The names of addresses, as programs find them (getnameinfo): asked for all at once, and taken as they come in time. Each is asked for once.
final class HostNames {
    /// A name server that does not answer holds up nobody for longer.
    private static let patience: DispatchTimeInterval = .seconds(2)
    static let addressesMax = 256
    /// As NI_MAXHOST.
    private static let octetsMax = 1025

    private final class Found: Sendable {
        let names = Mutex<[String: String]>([:])
    }

    private let found = Found()
    private var asked: Set<String> = []

    /// - Parameter addresses: as text; what is no address has no name.
    /// - Returns: names by address.
    func of(_ addresses: [String]) -> [String: String] {
        let group = DispatchGroup()
        for text in addresses where asked.count < Self.addressesMax {
            guard let address = IPAddress(text), asked.insert(text).inserted else { continue }
            DispatchQueue.global().async(group: group) { [found] in
                guard let name = Self.name(of: address) else { return }
                found.names.withLock { $0[text] = name }
            }
        }
        _ = group.wait(timeout: .now() + Self.patience)
        return found.names.withLock { $0 }
    }

    private static func name(of address: IPAddress) -> String? {
        var name = [CChar](repeating: 0, count: octetsMax)
        let status = SocketAddress.use(address, port: 0) { getnameinfo($0, $1, &name, socklen_t(octetsMax), nil, 0, NI_NAMEREQD) }
        guard status == 0 else { return nil }
        // Whoever owns a reverse zone writes what it likes there, and this is for a terminal.
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).printable
    }
}
