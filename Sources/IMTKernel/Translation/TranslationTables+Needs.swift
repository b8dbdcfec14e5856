import CLinux
import Glibc
import IMTPlan
import MATSignal

extension TranslationTables {
    /// The links at which programs rewrite what our rules leave to them.
    func setRewriting(links: [UInt32]) throws(KernelError) {
        var wanted = needs
        wanted.rewritingLinks = links
        try set(wanted) { () throws(KernelError) in
            if try exist() { try send(plan.rewritingAnew(model), operation: "leave packets to the programs at the links") }
        }
    }

    /// Peers that have a plain flow with one of their MoAs.
    func plainPeers() throws(KernelError) -> Set<IPAddress> {
        var found: Set<IPAddress> = []
        for table in families {
            for element in try socket.elements(of: TranslationRuleset.plainPeers, in: table) {
                if let peer = IPAddress(octets: element.key) { found.insert(peer) }
            }
        }
        return found
    }

    /// Changes the rules to what the host needs now. Maps and their counts stay as they are.
    func set(needs wanted: TranslationNeeds) throws(KernelError) {
        guard wanted != needs else { return }
        let before = needs
        try set(wanted) { () throws(KernelError) in
            try send(plan.changes(from: before, model), operation: "write the rules of the address mapping tables")
        }
    }

    /// Has the first packet to a peer told, or none any more. One chain's rules change.
    func set(awaitsUse: Bool) throws(KernelError) {
        guard needs.awaitsUse != awaitsUse else { return }
        var wanted = needs
        wanted.awaitsUse = awaitsUse
        try set(wanted) { () throws(KernelError) in try send(plan.leavingAnew(model), operation: "wait for packets to peers") }
    }

    /// What is needed stays what it was if the rules can't be written for it.
    private func set(_ wanted: TranslationNeeds, _ write: () throws(KernelError) -> Void) throws(KernelError) {
        let before = needs
        needs = wanted
        do throws(KernelError) {
            try write()
        } catch {
            needs = before
            throw error
        }
    }

    private func send(_ changes: [TableChange], operation: String) throws(KernelError) {
        var batch = NFTBatch(firstSequence: nextSequence)
        for change in changes { batch.append(change) }
        try send(batch, operation: operation)
    }

    /// Writes the rules of all chains anew, and creates chains that are missing; in one transaction, so no packet sees them away.
    func rewriteRules() throws(KernelError) {
        try send(plan.rulesAnew(model), operation: "write the rules of the address mapping tables")
    }

    /// Whether an earlier run had installed source NAT, whose connections are still there.
    func translatesSourcesNow() throws(KernelError) -> Bool {
        var found = false
        try chains { table, name, _ in if table == TranslationRuleset.tableName, name == TranslationRuleset.sourceNAT { found = true } }
        return found
    }

    /// Whether another program filters or translates packets of ours: base chains in nftables (iptables-nft makes the same), or
    /// tables of iptables-legacy.
    func othersFilter() throws(KernelError) -> Bool {
        var found = false
        try chains { table, _, isBase in
            if isBase, table != TranslationRuleset.tableName, !table.hasPrefix(TranslationRuleset.captureTables) { found = true }
        }
        return found || hasLegacyTables
    }

    /// Whether there are tables of iptables-legacy, of which no notification tells.
    var hasLegacyTables: Bool { ["ip_tables_names", "ip6_tables_names"].contains { !Self.isEmpty("/proc/thread-self/net/\($0)") } }

    /// All chains of IPv4, IPv6 and both.
    private func chains(_ body: (_ table: String, _ name: String, _ isBase: Bool) -> Void) throws(KernelError) {
        let families = [KernelValues.familyInternet, KernelValues.familyIPv4, KernelValues.familyIPv6]
        var found: [(String, String, Bool)] = []
        try socket.dump(
            type: KernelValues.subsystemTables | KernelValues.nftGetChain, operation: "list chains", header: [0, 0, 0, 0],
            restart: { found = [] }
        ) { incoming in
            guard let family = incoming.payload.first, families.contains(family) else { return }
            let attributes = incoming.attributes(after: 4)
            found.append(
                (
                    attributes.first(KernelValues.chainTable)?.string ?? "", attributes.first(KernelValues.chainName)?.string ?? "",
                    attributes.first(KernelValues.chainHook) != nil
                ))
        }
        for (table, name, isBase) in found { body(table, name, isBase) }
    }

    /// A file that is not there, or may not be read, says nothing.
    private static func isEmpty(_ path: String) -> Bool {
        let descriptor = mat_open(path, O_RDONLY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { return true }
        defer { close(descriptor) }
        var octet: UInt8 = 0
        return read(descriptor, &octet, 1) <= 0
    }
}
