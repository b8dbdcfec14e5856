/// What the rest of the host asks of our tables, beyond translation. Each costs packets something, so each is there only while needed.
package struct TranslationNeeds: Hashable {
    /// Source NAT for sockets that are bound to a HoA and talk to somebody plain. Its chain registers connection tracking, for every
    /// packet of the host; so it is installed with the first such packet, and then stays, unless only single programs can have sent that.
    package var translatesSources = false
    /// Mapped packets are kept out of connection tracking, which is there for other reasons.
    package var sparesTracking = false
    /// There are IPsec policies: packets that are still to be encrypted are left alone.
    package var exemptsIPsec = false
    /// The kernel can be asked whether an address is this host's (nft_fib).
    package var asksRouting = false
    /// Ports of the agent's beside 6289, in order.
    package var otherPorts: [UInt16] = []
    /// Peers' packets travel in datagrams: between our device and the stack they pass as they are, before anything else is asked of them.
    package var encapsulates = false
    /// No peer is in use, and nobody looks at the counts until the kernel tells of a packet to one of them.
    package var awaitsUse = false
    /// Links at whose egress a program rewrites TCP and UDP of direct peers, in order. At most `rewritingLinksMax`: each has rules of its own.
    package var rewritingLinks: [UInt32] = []
    package static let rewritingLinksMax = 8
    /// Nobody has asked the kernel to track connections, so that nothing has to be kept out of it: chain `hold` is not there.
    package var isUntracked = false

    package init(
        translatesSources: Bool = false, sparesTracking: Bool = false, exemptsIPsec: Bool = false, asksRouting: Bool = false,
        encapsulates: Bool = false, isUntracked: Bool = false
    ) {
        self.translatesSources = translatesSources
        self.sparesTracking = sparesTracking
        self.exemptsIPsec = exemptsIPsec
        self.asksRouting = asksRouting
        self.encapsulates = encapsulates
        self.isUntracked = isUntracked
    }
}

// The kernel tracks connections as soon as any table asks for it, and then those of every packet. Mapped packets need it only for a
// host firewall that asks for their state; so without one they are kept out of it, and our own source NAT is not even installed
// before there is a packet that it is for.
extension TranslationNeeds {
    /// What the host asks of the tables now.
    ///
    /// - Parameters:
    ///   - othersFilter: whether another program filters or translates packets of ours.
    ///   - hasPolicies: whether there are IPsec policies.
    package func reviewed(_ configuration: IMTConfiguration, othersFilter: Bool, hasPolicies: Bool) -> TranslationNeeds {
        var needs = self
        needs.exemptsIPsec = hasPolicies
        // Forwarded packets go out by the main table once their destination is known as plain, and do not ask first.
        if configuration.connectionTracking == .always || !configuration.homePrefixes.isEmpty {
            needs.translatesSources = translatesSources || configuration.traffic != .nothing
        }
        needs.sparesTracking = needs.spares(configuration, othersFilter)
        needs.isUntracked = !needs.translatesSources && !othersFilter
        return needs
    }

    /// A packet from a HoA goes to somebody plain: source NAT is needed from now on.
    package func translatingSources(_ configuration: IMTConfiguration, othersFilter: Bool) -> TranslationNeeds {
        var needs = self
        needs.translatesSources = true
        needs.isUntracked = false
        needs.sparesTracking = needs.spares(configuration, othersFilter)
        return needs
    }

    /// Whether source NAT can be there for no others than single programs.
    package func isForPrograms(_ configuration: IMTConfiguration) -> Bool {
        translatesSources && configuration.traffic == .nothing && configuration.connectionTracking != .always && configuration.homePrefixes.isEmpty
    }

    /// Those programs have ended, and their sockets have nothing more to say.
    package func leavingSources(_ configuration: IMTConfiguration, othersFilter: Bool) -> TranslationNeeds {
        var needs = self
        needs.translatesSources = false
        needs.isUntracked = !othersFilter
        needs.sparesTracking = needs.spares(configuration, othersFilter)
        return needs
    }

    private func spares(_ configuration: IMTConfiguration, _ othersFilter: Bool) -> Bool {
        // Without source NAT of ours and rules of others nobody has asked the kernel to track anything, and there is nothing to be
        // spared from.
        switch configuration.connectionTracking {
        case .always: false
        case .never: translatesSources || othersFilter
        // Of forwarded packets those that leave would be tracked all the same, and the answers not.
        case .auto: translatesSources && !othersFilter && configuration.homePrefixes.isEmpty
        }
    }
}
