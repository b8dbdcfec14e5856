/// What the rest of the host asks of our tables, beyond translation. Each costs packets something, so each is there only while needed.
package struct TranslationNeeds: Hashable {
    /// Source NAT for sockets that are bound to a HoA and talk to somebody plain. Its chain registers connection tracking, for every
    /// packet of the host; so it is installed with the first such packet, and then stays.
    package var translatesSources = false
    /// Mapped packets are kept out of connection tracking, which is there for other reasons.
    package var sparesTracking = false
    /// There are IPsec policies: packets that are still to be encrypted are left alone.
    package var exemptsIPsec = false
    /// The kernel can be asked whether an address is this host's (nft_fib).
    package var asksRouting = false

    package init(translatesSources: Bool = false, sparesTracking: Bool = false, exemptsIPsec: Bool = false, asksRouting: Bool = false) {
        self.translatesSources = translatesSources
        self.sparesTracking = sparesTracking
        self.exemptsIPsec = exemptsIPsec
        self.asksRouting = asksRouting
    }
}
