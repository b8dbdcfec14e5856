import Glibc
import IMTPlan
import KernelPrograms
import MATCore
import MATRuntime
import MATSignal

// Packets in datagrams by the kernel alone (`KernelEncapsulation`), beside the encapsulator, which has the same peers and takes what the kernel leaves.
extension IMTKernel {
    /// Whether packets in datagrams are the kernel's, as far as it can.
    public var encapsulatesInKernel: Bool { forwarding != nil && configuration.encapsulation != .agent }

    // MARK: Begin and end

    /// Loads the programs, where they are wanted and to be had.
    func beginForwarding() {
        guard configuration.encapsulation != .agent || configuration.dataPlane == .bpf else {
            try? removeForwarding()
            return
        }
        do throws(ProgramError) {
            forwarding = try KernelEncapsulation(configuration)
        } catch {
            if configuration.encapsulation != .agent {
                let effect = "packets in datagrams go through the agent, which takes more processor time"
                onEvent(.warning("the kernel can't encapsulate: \(error); \(effect)"))
            }
            if configuration.dataPlane == .bpf {
                onEvent(.warning("direct peers' packets can't be rewritten by BPF: \(error); nftables rewrites them, as with `data-plane: nftables`"))
            }
            try? removeForwarding()
        }
    }

    /// Ways that an earlier run has left with the kernel. Visited homes (protocol.md section 12) were that run's: programs ask for them anew.
    var adoptedForwarding: [HomePair: Carriage] {
        guard let forwarding, encapsulatesInKernel else { return [:] }
        return forwarding.pairs.reduce(into: [:]) { result, pair in
            guard configuration.homeAddresses.contains(pair.own), let way = forwarding.entry(of: pair)?.way else { return }
            result[pair] = Carriage(.encapsulated(own: way.own, peer: way.far), largest: UInt32(way.largest))
        }
    }

    /// Ties the programs to the links. Peers of an earlier run go on, and each one's next packet is held, so that the agent learns of it.
    func takeOverForwarding() {
        guard let forwarding else { return }
        do throws(ProgramError) {
            for pair in Array(forwarding.pairs) {
                guard tables.model.encapsulated[pair] != nil, let entry = forwarding.entry(of: pair) else {
                    try forwarding.remove(pair)
                    continue
                }
                // Not their way out, so that what comes here is held and asked about.
                encapsulator.apply([.accept(pair, from: entry.accepted)])
                unconfirmedForwarding.insert(pair)
            }
            try forwarding.set(ports: encapsulator.ports)
            encapsulator.joinsArrivals = !encapsulatesInKernel
            forwardingChanged()
        } catch {
            giveUpForwarding(error)
        }
        if !unconfirmedForwarding.isEmpty { wait(for: .adoptedForwarding, until: SystemClock.now().monotonic + AdoptedState.forwardedMax) }
    }

    /// Takes programs and maps away, also those that an earlier run has left.
    func removeForwarding() throws(KernelError) {
        let known = forwarding
        // Before the programs go: what our rules leave to them would leave as it is.
        if !tables.needs.rewritingLinks.isEmpty { try tables.setRewriting(links: []) }
        forwarding = nil
        encapsulator.joinsArrivals = true
        let directory = KernelEncapsulation.directory(configuration)
        guard known != nil || access(directory, F_OK) == 0 else { return }
        let links = try routes.links().keys.sorted()
        if let known { known.remove(links: links) } else { KernelEncapsulation.removeLeftovers(configuration, links: links) }
    }

    /// The kernel refused what it took before: the agent does it all.
    func giveUpForwarding(_ error: ProgramError) {
        if encapsulatesInKernel { onEvent(.warning("the kernel encapsulates no more: \(error); the agent does")) }
        if forwarding?.rewriting != nil { onEvent(.warning("BPF rewrites no more: \(error); nftables does")) }
        do throws(KernelError) { try removeForwarding() } catch { onEvent(.failed(error)) }
    }

    // MARK: What is told to the programs

    func writeForwardingPorts() {
        do throws(ProgramError) { try forwarding?.set(ports: encapsulator.ports) } catch { giveUpForwarding(error) }
    }

    /// These peers' entries changed.
    func writeForwarding(of pairs: some Sequence<HomePair>, after changes: [IMTChange]) {
        guard let forwarding else { return }
        confirmForwarding(changes)
        do throws(ProgramError) { try write(pairs, forwarding) } catch { giveUpForwarding(error) }
    }

    /// Links, own MoAs or routes changed: where programs belong, and where packets go first.
    func forwardingChanged(_ changes: [IMTChange] = []) {
        guard let forwarding else { return }
        confirmForwarding(changes)
        do throws(ProgramError) {
            if try !placePrograms(atNewLinks: false) { wait(for: .programs, until: SystemClock.now().monotonic) }
            try write(Set(forwarding.pairs).union(tables.model.encapsulated.keys), forwarding)
        } catch {
            giveUpForwarding(error)
        }
        rewritingChanged()
    }

    /// Ties the programs to the links that have own MoAs, or had one: a move goes to and fro between the same few, and to tie or untie one takes the
    /// kernel about ten milliseconds.
    ///
    /// - Parameter atNewLinks: also to links that have none yet.
    /// - Returns: whether all links that should have them do.
    @discardableResult
    func placePrograms(atNewLinks: Bool = true) throws(ProgramError) -> Bool {
        guard let forwarding, let device else { return true }
        let own = Set(locators.map(\.interfaceIndex))
        let wanted = linkTables.links.filter { index, link in
            (own.contains(index) || forwarding.isTied(to: index)) && index != device.index && !link.isLoopback
        }
        let links = atNewLinks ? wanted : wanted.filter { forwarding.isTied(to: $0.key) }
        keepRewriting(at: own)
        for error in try forwarding.place(device: device.index, links: links) {
            onEvent(.warning("\(error); without BPF, the agent and nftables take what comes there"))
        }
        return links.count == wanted.count
    }

    /// Links have their first own MoA. Signalling from there has gone first; until now what comes there was the agent's and nftables'.
    func placeAtNewLinks() {
        guard forwarding != nil else { return }
        do throws(ProgramError) { try placePrograms() } catch { giveUpForwarding(error) }
        rewritingChanged()
    }

    private func write(_ pairs: some Sequence<HomePair>, _ forwarding: KernelEncapsulation) throws(ProgramError) {
        guard encapsulatesInKernel else { return }
        // Most peers are reached the same way.
        var ways: [Carriage: ForwardingEntry.Way?] = [:]
        let plan = plan
        for pair in pairs {
            let carriage = tables.model.encapsulated[pair]
            var way: ForwardingEntry.Way?
            if let carriage {
                if let known = ways[carriage] { way = known } else { way = plan.forwardingWay(carriage) }
                ways[carriage] = way
            }
            // The agent knows nothing yet of one that was taken over; when its way is back after a move, the agent has to hear of it all the more.
            try forwarding.set(pair, way, accepted: encapsulator.table[pair]?.accepted ?? [], asks: unconfirmedForwarding.contains(pair))
        }
    }

    // MARK: What was taken over

    private func confirmForwarding(_ changes: [IMTChange]) {
        guard !unconfirmedForwarding.isEmpty else { return }
        for change in changes {
            switch change {
            case .setOutbound(let pair, _), .removeOutbound(let pair): unconfirmedForwarding.remove(pair)
            default: break
            }
        }
    }

    func endAdoptedForwarding() {
        let ended = unconfirmedForwarding.sorted()
        unconfirmedForwarding = []
        guard !ended.isEmpty else { return }
        do throws(KernelError) {
            try commit(ended.flatMap { [.removeOutbound($0), .accept($0, from: [])] })
        } catch {
            onEvent(.failed(error))
        }
    }
}
