import MATSignal

// ICMP errors quote the packet that they are about, and what they quote is translated like the packet itself: as the wire showed it to
// the router that sends the error, or as the socket knows it.
extension TranslationRuleset {
    // MARK: Where the quote lies

    // An ICMP error quotes the packet it is about after eight octets of its own.
    var quotedSource: HeaderField { HeaderField(base: .transport, offset: 8 + source.offset, length: width) }

    var quotedDestination: HeaderField { HeaderField(base: .transport, offset: 8 + destination.offset, length: width) }
    var quotedProtocol: HeaderField { HeaderField(base: .transport, offset: family == .ipv4 ? 17 : 14, length: 1) }
    var quotedPorts: UInt32 { family == .ipv4 ? 28 : 48 }

    /// IPv4: the quoted header's own checksum; what changes in both cancels out in the ICMP checksum. ICMPv6 covers the quote.
    var quotedChecksum: ChecksumRepair { .internet(offset: family == .ipv4 ? 18 : 2, pseudoHeader: false) }

    var quotedPortsAnswered: (HeaderField, HeaderField) { (transport(quotedPorts + 2, 2), transport(quotedPorts, 2)) }
    var quotedIdentifier: (HeaderField, HeaderField) { (transport(quotedPorts + 4, 2), transport(quotedPorts + 4, 2)) }
    var isQuotedEcho: [Expression] { [.load(quotedProtocol, into: r0), .compare(r0, .equal, icmp)] }

    var rewriteQuote: [Expression] {
        [
            .write(quotedDestination, from: r0, checksum: quotedChecksum), .write(quotedSource, from: r1, checksum: quotedChecksum),
        ]
    }

    // MARK: Chains

    /// An error that this host makes quotes the packet as it was delivered, between HoAs; the peer's network must see MoAs.
    var quotedOut: ChainDefinition {
        ChainDefinition(
            name: "quoted_out", hook: nil,
            rules: familyPaths.map { number, path in
                leave(by: number, path, ours: quotedDestination, theirs: quotedSource) + [
                    .write(quotedDestination, from: r0, checksum: quotedChecksum),
                    .write(quotedSource, from: r1, checksum: quotedChecksum),
                ]
            })
    }

    /// Errors about packets of ours, which quote them as they were on the wire.
    var errors: ChainDefinition {
        // The quoted source and destination are ours and the peer's; the keys are those of answers.
        let quote: [Expression] = [.load(quotedDestination, into: r0), .load(quotedSource, into: r1)]
        let isPlain: [Expression] = [.lookup(set: Self.plainFlows, key: r0, into: nil), .verdict(.accept)]
        return ChainDefinition(
            name: "errors", hook: nil,
            rules: [
                // About an untranslated flow of ours.
                quote + flowKey(2 * words, quotedPortsAnswered, protocolNumber: quotedProtocol) + isPlain,
                isQuotedEcho + quote + flowKey(2 * words, quotedIdentifier, protocolNumber: quotedProtocol) + isPlain,
            ]
                + allEntrances.map { entrance, set in
                    arrive(at: entrance, ours: quotedSource, theirs: quotedDestination, among: set) + rewriteQuote + [.verdict(.goTo("quoted_in"))]
                })
    }

    /// The quote is between HoAs now.
    var quotedIn: ChainDefinition {
        let key: [Expression] = [.load(quotedDestination, into: r0)]
        // About a plain flow to a peer: back to the MoAs it began between.
        let restore =
            [.lookup(set: Self.peerFlows, key: r0, into: r0)] + rewriteQuote
            + [.write(destination, from: r1, checksum: arrivingChecksum), .verdict(.accept)]
        return ChainDefinition(
            name: "quoted_in", hook: nil,
            rules: [
                isQuotedEcho + key + flowKey(words, quotedIdentifier, protocolNumber: quotedProtocol) + restore,
                key + flowKey(words, quotedPortsAnswered, protocolNumber: quotedProtocol) + restore,
            ]
                // From the peer itself: both headers.
                + allEntrances.map { entrance, set in
                    arrive(at: entrance, ours: destination, theirs: source, among: set)
                        + [.write(pair, from: r0, checksum: arrivingChecksum), .verdict(.accept)]
                }
                // From a router on the way: only the HoA it concerns.
                + [[.load(quotedSource, into: r0), .write(destination, from: r0, checksum: arrivingChecksum), .verdict(.accept)]])
    }
}
