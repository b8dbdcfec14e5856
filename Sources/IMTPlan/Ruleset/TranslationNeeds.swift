/// What the rest of the host asks of our tables, beyond translation. Each costs packets something, so each is there only while needed.
struct TranslationNeeds: Hashable {
    /// Source NAT for sockets that are bound to a HoA and talk to somebody plain. Its chain registers connection tracking, for every
    /// packet of the host; so it is installed with the first such packet, and then stays.
    var translatesSources = false
    /// Mapped packets are kept out of connection tracking, which is there for other reasons.
    var sparesTracking = false
    /// There are IPsec policies: packets that are still to be encrypted are left alone.
    var exemptsIPsec = false
    /// The kernel can be asked whether an address is this host's (nft_fib).
    var asksRouting = false
}
