import MATSignal

/// A mapping as an IMS keeps it: as the node signed it, and where it came from.
public struct StoredMapping: Hashable, Sendable {
    public var certified: CertifiedMapping
    /// Where the accepted IMS Update came from: pushes about the node's correspondents go there.
    public var source: Endpoint
    /// The server's address that it was sent to: the node, and translators on the way, expect pushes from that one.
    public var local: IPAddress
    /// Unix time in ms of the proof of its locators: the newest proof of a MoA holds it.
    public var provenAt: UInt64

    public init(certified: CertifiedMapping, source: Endpoint, local: IPAddress, provenAt: UInt64) {
        self.certified = certified
        self.source = source
        self.local = local
        self.provenAt = provenAt
    }

    public var record: MappingRecord { certified.record }
}

extension StoredMapping {
    /// No node sends from port 0: the mark of what no node registered.
    package static let tombstoneSource = Endpoint(.unspecifiedIPv6, port: 0)

    /// Whether it stands for a revocation, and not for what a node registered.
    public var isRevocation: Bool { source == Self.tombstoneSource && record.isWithdrawal }

    package func isCurrent(_ now: Now) -> Bool { record.expires > now.wallMilliseconds }
}

extension Locator {
    package var prefix: IPPrefix { IPPrefix(covering: moa.address, length: prefixLength) }
}
