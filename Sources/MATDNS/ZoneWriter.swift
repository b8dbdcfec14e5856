import MATCore
import MATSignal

/// Writes the zone lines that make an IMS findable for its prefixes, in the form every name server's zone parser takes.
///
/// A wildcard answers for every HoA of a prefix, but neither for a name that exists nor for names below a node that exists
/// (RFC 4592): as soon as the zone holds, say, a PTR at an HoA, that HoA needs the record at its own name, and every node on
/// the way down to it needs a wildcard of its own. Give such HoAs as `existing` and the lines for both are written.
public struct ZoneWriter: Sendable {
    /// Which of the two forms of protocol.md section 8.
    public enum Form: String, CaseIterable, Sendable {
        /// TYPE65400 in the generic form of RFC 3597.
        case generic
        /// SRV and TXT, for hosts that can't serve unknown types.
        case service
        case both
    }

    public var servers: [IMSRecord]
    public var form: Form
    /// Seconds.
    public var ttl: UInt32

    public init(servers: [IMSRecord], form: Form = .both, ttl: UInt32 = 300) {
        self.servers = servers
        self.form = form
        self.ttl = ttl
    }

    /// The lines for prefixes.
    ///
    /// - Parameters:
    ///   - prefixes: what the IMS serves. One that doesn't end at a label is written as the wildcards of its parts.
    ///   - existing: HoAs at whose names the zone holds other records.
    ///   - zone: the zone the lines are for; names outside of it are left out. `nil` writes all.
    public func lines(prefixes: [IPPrefix], existing: [HomeAddress] = [], zone: DomainName? = nil) -> [String] {
        var owners = OwnerNames(zone: zone)
        for prefix in prefixes {
            owners.add(prefix)
            for hoa in existing where prefix.contains(hoa.address) { owners.add(existing: hoa.address, within: prefix) }
        }
        return owners.names.flatMap(lines(at:))
    }

    /// A whole zone: SOA, NS, and the lines for prefixes.
    ///
    /// - Parameters:
    ///   - contact: the mailbox in SOA form (`hostmaster.example.net`).
    ///   - serial: to grow with every change.
    public func zone(
        _ apex: DomainName, nameServers: [DomainName], contact: DomainName, serial: UInt32, prefixes: [IPPrefix],
        existing: [HomeAddress] = []
    ) -> String {
        let primary = nameServers.first ?? .root
        var text = ["\(apex) \(ttl) IN SOA \(primary) \(contact) \(serial) 3600 600 604800 \(min(ttl, 300))"]
        text += nameServers.map { "\(apex) \(ttl) IN NS \($0)" }
        text += lines(prefixes: prefixes, existing: existing, zone: apex)
        return text.joined(separator: "\n") + "\n"
    }

    /// The lines at one reverse name or wildcard.
    public func lines(at owner: DomainName) -> [String] {
        var lines = [String]()
        if form != .service {
            lines += servers.map { server in
                let rdata = server.encode()
                return "\(owner) \(ttl) IN TYPE\(IMSRecord.type) \\# \(rdata.count) \(Hexadecimal.write(rdata))"
            }
        }
        // A wildcard covers `_mat-ims._udp` under each of its names by itself; below an existing name it has to be written.
        let isWildcard = owner.wire.starts(with: [1, UInt8(ascii: "*")])
        if form != .generic, let owner = isWildcard ? owner : owner.prefixed("_mat-ims", "_udp") {
            lines += servers.map { "\(owner) \(ttl) IN SRV \($0.priority) \($0.weight) \($0.port) \($0.target)" }
            var seen = Set<[UInt8]>()
            for key in servers.flatMap(\.keys) where seen.insert(key).inserted {
                lines.append("\(owner) \(ttl) IN TXT \"ed25519=\(Base64.write(key))\"")
            }
        }
        return lines
    }
}

/// Collects owner names, each once, in the order they were asked for.
private struct OwnerNames {
    let zone: DomainName?
    private(set) var names: [DomainName] = []
    private var seen: Set<DomainName> = []

    init(zone: DomainName?) { self.zone = zone }

    /// The prefix's own name, where its certificate is looked up, and wildcards for all in it.
    mutating func add(_ prefix: IPPrefix) {
        add(.reverse(prefix))
        let bits = prefix.family.reverseLabelBits
        let spare = (bits - prefix.familyLength % bits) % bits
        // 192.0.0.0/20 is no node of the tree: a wildcard at 0.192 would speak for others, so its sixteen /24 are written.
        let length = prefix.length + spare
        for part in 0..<(UInt64(1) << UInt64(spare)) {
            addNode(IPPrefix(covering: prefix.address.adding(part, shiftedBy: 128 - length), length: length))
        }
    }

    /// The name itself, and name and wildcard of every node between it and the prefix.
    mutating func add(existing address: IPAddress, within prefix: IPPrefix) {
        let step = prefix.family.reverseLabelBits
        var length = prefix.length + (step - prefix.familyLength % step)
        while length < 128 {
            addNode(IPPrefix(covering: address, length: length))
            length += step
        }
        addNode(IPPrefix(address))
    }

    private mutating func addNode(_ node: IPPrefix) {
        let name = DomainName.reverse(node)
        add(name)
        if node.length < 128, let wildcard = name.prefixed("*") { add(wildcard) }
    }

    private mutating func add(_ name: DomainName) {
        if let zone, !name.isWithin(zone) { return }
        if seen.insert(name).inserted { names.append(name) }
    }
}

extension IPAddress {
    /// The address plus `number << shift`, for walking the parts of a prefix; what leaves the 128 bits is lost.
    fileprivate func adding(_ number: UInt64, shiftedBy shift: UInt8) -> IPAddress {
        if shift >= 64 { return IPAddress(high: high &+ number << UInt64(shift - 64), low: low) }
        let (sum, carry) = low.addingReportingOverflow(number << UInt64(shift))
        return IPAddress(high: high &+ (carry ? 1 : 0), low: sum)
    }
}
