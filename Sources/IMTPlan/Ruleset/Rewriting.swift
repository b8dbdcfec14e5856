import MATSignal

// What the kernel's programs at the links rewrite (Sources/KernelPrograms/Programs/rewriting.h) passes our rules as it is: out to a link that has the
// program, in from HoA to HoA. The maps stay what they are without programs, for all that these leave, and for whoever lists them.
extension TranslationRuleset {
    /// HoAs whose TCP and UDP the programs take: away from home (`TranslationModel.homesAway`), and not while IPsec may seal packets first. Those of
    /// mobile networks are told by their prefix, which the programs don't look at.
    package var rewrittenHomes: [HomeAddress] {
        guard !needs.rewritingLinks.isEmpty, !needs.exemptsIPsec, homeNetworks.isEmpty else { return [] }
        return Array(homeAddresses.filter { homesAway.contains($0.address) }.sorted { $0.address < $1.address }.prefix(RewritingEntries.homesMax))
    }

    /// Questions to an address field by loads of four octets, which need no call. For the few packets whose last four octets are right they all count.
    private func isExactly(_ address: IPAddress, _ field: HeaderField) -> [Expression] {
        stride(from: Int(width) - 4, through: 0, by: -4).flatMap { offset -> [Expression] in
            let part = HeaderField(base: field.base, offset: field.offset + UInt32(offset), length: 4)
            return [.load(part, into: r0), .compare(r0, .equal, Array(address.packetOctets[offset..<(offset + 4)]))]
        }
    }

    /// The header's own octet, in both families: what has extension headers is not the programs'. A datagram that is still to be cut up has none yet.
    var headersProtocol: Expression { .load(HeaderField(base: .network, offset: family == .ipv4 ? 9 : 6, length: 1), into: r0) }

    /// Out by a link that has the program, to a peer that is reached by rewriting. Whoever else packets from a HoA are for, they are these rules': what
    /// is plain needs source NAT, which the agent must hear of before connection tracking confirms the flow.
    var leftToPrograms: [[Expression]] {
        let homes = rewrittenHomes
        // After `isUnmapped`, and with the look-up of both addresses, nothing more is to be asked of the source.
        let sources: [[Expression]] = homes.count == homeAddresses.count ? [[]] : homes.map { isExactly($0.address, source) }
        guard !homes.isEmpty else { return [] }
        return sources.flatMap { isFrom in
            [Self.udp, Self.tcp].flatMap { number in
                needs.rewritingLinks.map { link in
                    let leaves: [Expression] = [.meta(.output, into: r0), .compare(r0, .equal, nativeOctets(link))]
                    return [headersProtocol, .compare(r0, .equal, number)] + isFrom + leaves + loadPair
                        + [.lookup(set: Self.mapped, key: r0, into: nil), .verdict(.accept)]
                }
            }
        }
    }

    /// In, from HoA to HoA already. Nothing else that is for such a HoA would be changed by these rules.
    var rewrittenByPrograms: [[Expression]] {
        rewrittenHomes.flatMap { home in
            [Self.udp, Self.tcp].map { number in
                [headersProtocol, .compare(r0, .equal, number)] + isExactly(home.address, destination) + untracked + [.verdict(.accept)]
            }
        }
    }
}
