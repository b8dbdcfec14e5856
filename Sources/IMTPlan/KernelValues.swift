import MATSignal

/// The kernel's numbers that a plan needs, with the header that each is from. They are kernel ABI and never change. Those of messages and
/// their attributes stand in IMTKernel, which alone writes and reads them.
package enum KernelValues {
    // linux/socket.h: AF_INET, AF_INET6; the same as NFPROTO_IPV4 and NFPROTO_IPV6 of linux/netfilter.h
    package static let familyIPv4: UInt8 = 2, familyIPv6: UInt8 = 10
    package static func family(_ family: AddressFamily) -> UInt8 { family == .ipv4 ? familyIPv4 : familyIPv6 }

    /// The family that the kernel means by this number; `nil` for one of others.
    package static func addressFamily(_ number: UInt8) -> AddressFamily? {
        number == familyIPv4 ? .ipv4 : number == familyIPv6 ? .ipv6 : nil
    }

    // linux/rtnetlink.h: RT_TABLE_*, RT_SCOPE_*
    package static let tableMain: UInt32 = 254, tableLocal: UInt32 = 255
    package static let scopeUniverse: UInt8 = 0, scopeSite: UInt8 = 200, scopeLink: UInt8 = 253

    // linux/if.h: IFF_*
    package static let flagUp: UInt32 = 0x1, flagLoopback: UInt32 = 0x8, flagRunning: UInt32 = 0x40
    /// IFF_POINTOPOINT and IFF_NOARP.
    package static let flagsWithoutNeighbours: UInt32 = 0x10 | 0x80

    // linux/if_arp.h: ARPHRD_*. Of the last there are links whose packets begin with the IP header.
    package static let hardwareEthernet: UInt16 = 1
    package static let hardwareBare: Set<UInt16> = [512, 519, 0xFFFE]

    // linux/if_addr.h: IFA_F_*
    /// Of IPv4: IFA_F_SECONDARY; of IPv6: IFA_F_TEMPORARY.
    package static let addressSecondary: UInt32 = 0x01
    package static let addressOptimistic: UInt32 = 0x04, addressDADFailed: UInt32 = 0x08, addressDeprecated: UInt32 = 0x20
    package static let addressTentative: UInt32 = 0x40

    // linux/neighbour.h: NUD_*
    package static let neighbourFailed: UInt16 = 0x20
    /// NUD_PERMANENT, NOARP, REACHABLE, PROBE, STALE and DELAY: there is an address to send to, and nothing says that nobody answers.
    package static let neighbourValid: UInt16 = 0x80 | 0x40 | 0x02 | 0x10 | 0x04 | 0x08

    // linux/fib_rules.h: FR_ACT_*
    package static let ruleActionTable: UInt8 = 1, ruleActionGoto: UInt8 = 2, ruleActionBlackhole: UInt8 = 6, ruleActionUnreachable: UInt8 = 7
    package static let ruleActionProhibit: UInt8 = 8

    // linux/netfilter.h: NF_INET_*
    package static let hookPrerouting: UInt32 = 0, hookForward: UInt32 = 2, hookOutput: UInt32 = 3, hookPostrouting: UInt32 = 4
}
