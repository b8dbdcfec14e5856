import IMTPlan
import MATCore
import MATSignal

/// The DNS servers that a node asks or knows of, as its shell has read them.
package struct NameServers: Hashable, Sendable {
    package struct Server: Hashable, Sendable {
        package var address: IPAddress
        /// A process of this host.
        package var isLocal: Bool
        /// Whom such a process asks itself.
        package var isUpstream: Bool

        package init(_ address: IPAddress, isLocal: Bool = false, isUpstream: Bool = false) {
            self.address = address
            self.isLocal = isLocal
            self.isUpstream = isUpstream
        }
    }

    /// Where they are listed, for people.
    package var origin: String
    /// Those that the node itself asks, in order.
    package var inUse: [Server]
    /// The system's, which other processes ask, where the configuration names others.
    package var others: [IPAddress]

    package init(origin: String = "", inUse: [Server] = [], others: [IPAddress] = []) {
        self.origin = origin
        self.inUse = inUse
        self.others = others
    }

    /// All that are known, those in use first.
    var addresses: [IPAddress] {
        (inUse.map(\.address) + others).reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }

    /// Never captured, or a question to one would wait for an answer of it. Those that matter most come first.
    package var alwaysPlain: [IPPrefix] { addresses.prefix(IMTConfiguration.alwaysPlainMax).map { IPPrefix($0) } }

    /// Whether names are found by a process of this host, which asks whom it likes.
    ///
    /// - Parameter own: all addresses of this host.
    package func isLocal(own: Set<IPAddress>) -> Bool {
        inUse.contains { !$0.isUpstream && ($0.isLocal || own.contains($0.address)) }
    }
}
