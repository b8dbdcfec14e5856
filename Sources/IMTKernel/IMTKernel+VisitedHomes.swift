import IMTPlan
import MATSignal

// Homes that networks lend the node while programs use them. Their packets travel in datagrams, so that such a home is an address of our device, a
// capture table with its rule, and nothing in the nftables tables but what stands in sets.
extension IMTKernel {
    /// This HoA is the node's as well. Sockets can be bound to it when this returns.
    public func enter(_ home: HomeAddress) throws(KernelError) {
        // Of an earlier run's it is there all the time.
        if configuration.visitedHomes.contains(home), homes.usable.contains(home.address) { return }
        try KernelError.planned { () throws(PlanError) in try configuration.enter(home) }
        do throws(KernelError) {
            try homesChanged(retire: false)
        } catch {
            configuration.leave(home)
            try? homesChanged(retire: true)
            throw error
        }
        guard homes.usable.contains(home.address) else {
            configuration.leave(home)
            try homesChanged(retire: true)
            throw .invalid("put the visited home on \(configuration.deviceName)", "\(home)")
        }
    }

    /// It is the node's no more, and nothing of its peers stays.
    public func leave(_ home: HomeAddress) throws(KernelError) {
        let known = Set(tables.model.pairs.filter { $0.own == home } + encapsulator.table.peers.map(\.pair).filter { $0.own == home })
        var failure: KernelError?
        if !known.isEmpty {
            do throws(KernelError) { try commit(known.sorted().flatMap { [.removeOutbound($0), .accept($0, from: [])] }) } catch { failure = error }
        }
        // Whatever became of its peers, the address goes.
        injector.forget(home.address)
        configuration.leave(home)
        try homesChanged(retire: true)
        if let failure { throw failure }
    }

    /// Those that programs of an earlier run start from, whose sockets go on with them: they stay on our device, until the agent leaves them.
    func adoptVisitedHomes() {
        guard let device else { return }
        let present = Set(linkTables.addresses.filter { $0.interfaceIndex == device.index }.map(\.address))
        let named = Set(groupsInUse.flatMap(\.name.via.homes)).subtracting(configuration.homeAddresses)
        for home in named.sorted() where present.contains(home.address) { try? configuration.enter(home) }
        encapsulator.setHomes(configuration.allHomes)
    }

    private func homesChanged(retire: Bool) throws(KernelError) {
        encapsulator.setHomes(configuration.allHomes)
        try readLinks(mainRoutes: false)
        try placeHomes(retire: retire)
        try readLinks(mainRoutes: false)
        try setHost(homes: unhomed(), addresses: decidedAddresses())
        try synchroniseRoutes(readBack: .nothing)
    }
}
