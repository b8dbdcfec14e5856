import MATSignal

/// The tables `ip mat` and `ip6 mat`: what a packet meets on its way.
///
///     from a local socket                                    from the network
///     output -310      hold        to mat0: untracked (*)    prerouting -310  deliver   mapped: addresses become HoAs
///     (routing by HoA)                                        |               stranger  to a MoA, not mapped: claimed by a
///     postrouting 100  source_nat  plain, from a HoA          |                         socket, known plain, or held
///     postrouting 310  translate   mapped: become MoAs       (conntrack, local delivery)
///
/// (*) This chain is there only while connections are tracked.
///
/// A mobile router's hosts: their packets pass `translate` and `deliver` like its own, and between them
///
///     forward 300      hold_forwarded   to mat0: copied to the agent, and untracked because dropped
///
/// Their addresses are translated by rules that name the home prefix and the MoPre, whose bits the kernel can exchange as
/// constants: whatever their number and the prefix's length, no map has an entry for any of them. A host behind another's router
/// is a peer like any other, with an entry of its own: the look-up stays one of a whole address.
///
/// Why translation leaves in postrouting and enters in prerouting, outside of conntrack on both sides: conntrack, source NAT
/// and a host's own firewall then see one conversation between HoAs, the same before and after every handover. Translated in
/// the output hook, a connection would go out between MoAs and come back between HoAs: to conntrack, two halves that never
/// meet, and `ct state established` would not match the answers.
///
/// The IMT is maps of peers, and rules that know what is the node's own. A packet leaves by a path's rule (own HoA to own MoA)
/// and map `outN` (peer HoA : peer MoA), and arrives by `own` (own MoA : own HoA) and the HoA's map `in_...` (peer MoA : peer
/// HoA). What belongs to a peer and what belongs to the node are kept apart, so that a node that moves replaces a few rules and
/// one element, whatever the number of its peers; and still each peer can be sent to from another MoA (a path of its own), and
/// a packet is translated at both ends or not at all.
///
/// Keys are single addresses, read from the packet, never results of another look-up: they hash fastest (the kernel has a special
/// case for four octets), and `nft list` (1.0.6) aborts at a look-up of a look-up's result.
///
/// What goes wrong goes into the agent's hands, not to somebody else, whatever the agent knows by then. At either end one more
/// question is asked of what no rule has taken:
///
///     deliver    for an own MoA that went away and is back: translated, as ever           (`retired`, chain `returned`)
///                for another address that the agent has seen                              (`known`)
///                for any other that is this host's by now: questioned like an own MoA's   (chain `stranger`)
///     translate  from a HoA to a HoA whose entry was given up, and not into our device: copied to the agent, dropped (`forgotten`)
///
/// What belongs together stands in a file: `Sets`, `Leaving`, `Arriving`, `Errors`, `PlainBeside` (untranslated flows with peers' MoAs),
/// `Strangers`, `Networks` (mobile routers), and `Fragments`, which they are made of.
///
/// Where the kernel can (`TableProtection`), the tables are the agent's own and outlive it: others can't flush them.
/// Elsewhere what others remove is found and put back.
package struct TranslationRuleset {
    let family: AddressFamily
    let configuration: IMTConfiguration
    var needs = TranslationNeeds()
    /// By number, all families'.
    var paths: [UInt32: DeparturePath] = [:]
    /// The own MoAs of all families.
    var own: [MobileAddress: HomeAddress] = [:]
    var retired: [MobileAddress: HomeAddress] = [:]
    /// As `TranslationModel.homesAway`.
    var homesAway: Set<IPAddress> = []
    /// HoAs that networks lend this node.
    var visited: Set<IPAddress> = []
    /// HoAs whose peers are being told of a move.
    var announcing: Set<HomeAddress> = []
    /// Where peers' packets come from; `nil` if that is many places (`peerConstantsMax`).
    var arrivals: Set<IPAddress>? = []

    /// A family without a HoA has nothing to translate, and its packets meet no hook of ours.
    var isWithoutHome: Bool { homeAddresses.isEmpty }
    var homeAddresses: [HomeAddress] { configuration.homeAddresses.filter { $0.family == family } }
    /// In order: those whose packets are not nobody's.
    var homesOfPackets: [IPAddress] { homeAddresses.map(\.address) + visited.filter { $0.family == family }.sorted() }
    var familyPaths: [(number: UInt32, path: DeparturePath)] {
        paths.filter { $0.value.moa.family == family }.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    package var table: TableDefinition { TableDefinition(family: family, name: Self.tableName, sets: sets, chains: chains) }

    // MARK: Chains

    var chains: [ChainDefinition] {
        guard !homeAddresses.isEmpty else { return [alwaysPlain] }
        var all =
            (needs.isUntracked ? [] : [hold, heldHere])
            + [
                translate, unmapped, begins, unhomed, astray, quotedOut, started, ourPort, deliver, returned, unseen, errors, quotedIn, answers,
            ] + strangerChains + [alwaysPlain] + homeAddresses.map(begun)
            + homeAddresses.filter { configuration.network(of: $0) == nil }.map(arrived) + ownChains
        if needs.translatesSources { all.append(snat) }
        if !homeNetworks.isEmpty { all += [holdForwarded, unhomedNetwork] }
        // Chains are created before the rules that jump to them, so their order here is only for readers of `nft list`.
        return all
    }

    /// Chains that a change of what the host asks makes superfluous, each before those that it jumps to.
    package static func superfluous(before: TranslationNeeds, now: TranslationNeeds) -> [String] {
        (before.translatesSources && !now.translatesSources ? [sourceNAT] : []) + (!before.isUntracked && now.isUntracked ? ["hold", "held"] : [])
    }

    /// The chains whose rules name paths: made anew when a path comes, goes or moves. The last two do so only for mobile networks.
    var pathChains: [ChainDefinition] {
        guard !homeAddresses.isEmpty else { return [] }
        guard !homeNetworks.isEmpty else { return [translate, quotedOut] }
        return [translate, quotedOut] + (needs.sparesTracking ? [hold] : []) + (needs.translatesSources ? [snat] : [])
    }

    /// The chains whose rules name MoPres, besides those.
    var networkChains: [ChainDefinition] { homeNetworks.isEmpty ? [] : [deliver, returned, errors, quotedIn, holdForwarded] }

    var familyOwn: [(MobileAddress, HomeAddress)] {
        own.filter { $0.key.family == family && homeAddresses.contains($0.value) }.sorted { $0.key.address < $1.key.address }
            .map { ($0.key, $0.value) }
    }
    /// Those of each own MoA: made anew when one comes or goes.
    var ownChains: [ChainDefinition] { familyOwn.map { toPeer($0.0) } }
    /// The chains that lead to them, or name own MoAs.
    var chainsToOwn: [ChainDefinition] { homeAddresses.isEmpty ? [] : homeAddresses.map(begun) + [unmapped, deliver] }
}
