import MATSignal

/// Where servers that share a store meet when they give addresses to visitors: who asks two of them at once gets one address.
///
/// ```
///   a server gives a visitor a first address ──► with it, in one write, the next version of the visitor's gate ──► durable
///   another one, at the same time                ──► the same version: refused ──► decides anew, knowing of the first address
/// ```
/// A visitor's key says which gate is its. They are a fixed number, since one for each visitor would stay for every one that ever came; visitors that
/// share a gate by chance wait for each other, once, if they come at the same moment.
struct VisitorGates: Sendable {
    static let count: UInt16 = 4096

    /// Of those that somebody came through; as many as there are at most.
    private var versions: [UInt16: UInt64] = [:]

    /// - Parameter key: as good as random.
    static func gate(of key: PublicKey) -> UInt16 { key.octets.prefix(2).reduce(0) { $0 << 8 | UInt16($1) } % count }

    /// What is to be written with a first address.
    func next(of key: PublicKey) -> StoredRow {
        let gate = Self.gate(of: key)
        return row(gate, version: (versions[gate] ?? 0) + 1)
    }

    /// What is held of the same one.
    func row(like row: StoredRow) -> StoredRow? {
        RowKey.gate(row.key).flatMap { gate in versions[gate].map { self.row(gate, version: $0) } }
    }

    /// The store holds this.
    ///
    /// - Parameter isAnyVersion: also if it is older than what was believed.
    mutating func hold(_ row: StoredRow, isAnyVersion: Bool) {
        guard let gate = RowKey.gate(row.key) else { return }
        if isAnyVersion || versions[gate] ?? 0 < row.version { versions[gate] = row.version }
    }

    /// ```
    /// form 1
    /// ```
    private func row(_ gate: UInt16, version: UInt64) -> StoredRow {
        StoredRow(.visitorGate, key: RowKey.of(gate: gate), value: [1], version: version)
    }
}
