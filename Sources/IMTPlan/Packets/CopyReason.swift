/// What the chains did with a packet that they copied.
package enum CopyReason: String {
    /// Dropped; the agent lets it in, and if it is slow the sender's repetition passes by itself.
    case opener = "opener"
    /// Dropped; only the agent can let it in.
    case held = "held"
    /// The stack's answer to a segment of an unknown source; dropped for good.
    case reset = "reset"
    /// On its way through this router; dropped, and goes on when the agent knows how.
    case forwarded = "forwarded"
    /// On its way out, and lacking source NAT or the entry that its destination has lost; sent anew once that is there.
    case leaving = "leaving"
    /// A connection that begins to a peer which may not have heard where this host is; sent anew once it has.
    case begins = "begins"
    /// Mapped, and on its way undisturbed: some peer is in use again.
    case used = "used"
}
