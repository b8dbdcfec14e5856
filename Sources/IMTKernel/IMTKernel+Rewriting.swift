import IMTPlan
import KernelPrograms
import MATSignal

// Direct peers' packets by programs at the links (`KernelRewriting`), beside nftables, which has the same entries and does what these leave.
//
// In each step the programs are ready before our rules leave packets to them, and the rules take them back before the programs are gone: in between
// both can do it. In the other order HoAs would leave as they are.
extension IMTKernel {
    /// Whether direct peers' packets are rewritten by programs, at some link at least.
    public var rewritesInPrograms: Bool { !tables.needs.rewritingLinks.isEmpty }

    private var rewriting: KernelRewriting? { forwarding?.rewriting }

    private func attempt(_ body: (KernelRewriting) throws(ProgramError) -> Void) {
        guard let rewriting else { return }
        do throws(ProgramError) { try body(rewriting) } catch { giveUpForwarding(error) }
    }

    // MARK: Whose packets

    /// HoAs that nftables leaves to the programs, as the rules of `TranslationRuleset.rewrittenHomes`, with what they are translated by.
    private func rewritingSettings(_ model: TranslationModel, homes: Set<IPAddress>) -> RewritingEntries.Settings {
        var settings = RewritingEntries.Settings()
        settings.device = device?.index ?? 0
        settings.releaseMark = configuration.releaseMark
        guard !tables.needs.exemptsIPsec, configuration.homePrefixes.isEmpty else { return settings }
        settings.homes = Set(configuration.homeAddresses.filter { homes.contains($0.address) })
        settings.own = model.own
        return settings
    }

    /// Before a transaction after which these HoAs are on no real link: those of before and after are the programs', and what changes is nobody's there.
    ///
    /// - Parameter isReleasing: whether the transaction gives up retired MoAs.
    func prepareRewriting(_ changes: [IMTChange], homes: Set<IPAddress> = [], isReleasing: Bool = false) {
        attempt { rewriting throws(ProgramError) in
            // Those that are about to be away as well. Not what is a MoA until then, and a retired one afterwards: our rules have given its packets
            // the peers' MoAs, to which there is no entry, and what the agent gets of them it would take, when it lets them go, for plain flows.
            let away = tables.model.homesAway.union(isReleasing ? homes : tables.model.homesAway(among: homes))
            var settings = rewritingSettings(tables.model, homes: away)
            for change in changes {
                switch change {
                case .setOwn(let moa, let home): if settings.own[moa] != home { settings.own[moa] = nil }
                case .removeOwn(let moa): settings.own[moa] = nil
                default: break
                }
            }
            try rewriting.set(settings)
            try rewriting.withdraw(changes)
        }
    }

    /// After a transaction.
    func writeRewriting(_ touched: TouchedKeys) {
        attempt { rewriting throws(ProgramError) in
            try rewriting.write(tables.model, touched)
            try rewriting.set(rewritingSettings(tables.model, homes: tables.model.homesAway))
        }
    }

    /// The tables were read anew, or put back: all of it is compared.
    func writeRewriting(_ model: TranslationModel? = nil) {
        let model = model ?? tables.model
        attempt { rewriting throws(ProgramError) in
            try rewriting.writeAll(model)
            try rewriting.set(rewritingSettings(model, homes: model.homesAway))
        }
    }

    // MARK: At which links

    /// Before the tables are installed: programs and maps are as they need them.
    func beginRewriting(_ model: TranslationModel) {
        guard rewriting != nil else { return }
        if !configuration.homePrefixes.isEmpty {
            onEvent(.warning("`data-plane: bpf` leaves mobile networks to nftables: all of this node's packets are rewritten by it"))
            return
        }
        writeRewriting(model)
        attempt { _ throws(ProgramError) in try placePrograms() }
        if let forwarding { tables.needs.rewritingLinks = rewritingLinks(forwarding) }
    }

    private func rewritingLinks(_ forwarding: KernelEncapsulation) -> [UInt32] {
        Array(forwarding.rewritingLinks(among: Set(locators.map(\.interfaceIndex))).prefix(TranslationNeeds.rewritingLinksMax))
    }

    /// Links are about to lose the programs, but for these.
    func keepRewriting(at links: Set<UInt32>) { setRewriting(links: tables.needs.rewritingLinks.filter { links.contains($0) }) }

    /// Links have got the programs.
    func rewritingChanged() {
        guard let forwarding, rewriting != nil, configuration.homePrefixes.isEmpty else { return }
        attempt { rewriting throws(ProgramError) in try rewriting.set(rewritingSettings(tables.model, homes: tables.model.homesAway)) }
        setRewriting(links: rewritingLinks(forwarding))
    }

    private func setRewriting(links: [UInt32]) {
        guard links != tables.needs.rewritingLinks else { return }
        do throws(KernelError) { try tables.setRewriting(links: links) } catch { onEvent(.failed(error)) }
    }

    // MARK: This host

    /// Tells the tables which HoAs are on no real link, and which addresses this host has.
    func setHost(homes: Set<IPAddress>, addresses: Set<IPAddress>) throws(KernelError) {
        prepareRewriting([], homes: homes)
        defer { writeRewriting(TouchedKeys([])) }
        try tables.setHost(homes: homes, addresses: addresses)
    }

    // MARK: Plain flows

    /// What arrives from peers with plain flows is nftables', whose set of them decides: the programs only ever add to what they know of it.
    func reviewPlainFlows() {
        guard let rewriting else { return }
        let believed = rewriting.withPlainFlows
        guard !believed.isEmpty else { return }
        do throws(KernelError) {
            let plain = try tables.plainPeers()
            attempt { rewriting throws(ProgramError) in
                for pair in believed where !plain.contains(pair.peer.address) { try rewriting.set(pair, plain: false) }
            }
        } catch {
            onEvent(.failed(error))
        }
    }

    /// Flows with MoAs that are about to be a peer's, or of tables that are new.
    func rememberPlainFlows() {
        guard rewriting != nil else { return }
        do throws(KernelError) {
            let plain = try tables.plainPeers()
            guard !plain.isEmpty else { return }
            attempt { rewriting throws(ProgramError) in
                for home in configuration.homeAddresses {
                    for peer in plain where peer.family == home.family {
                        try rewriting.set(HomePair(own: home, peer: HomeAddress(peer)), plain: true)
                    }
                }
            }
        } catch {
            onEvent(.failed(error))
        }
    }
}
