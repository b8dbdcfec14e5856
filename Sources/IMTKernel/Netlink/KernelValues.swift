import IMTPlan

/// The numbers of netlink's messages and attributes, in one place: most are anonymous enumerators or macros, which Swift sees as signed integers or not at
/// all, and each needs its width on the wire. All of them are kernel ABI and never change.
extension KernelValues {
    // linux/netlink.h
    static let netlinkRoute: Int32 = 0
    static let netlinkXFRM: Int32 = 6
    static let netlinkNetfilter: Int32 = 12
    static let flagRequest: UInt16 = 0x01
    static let flagAck: UInt16 = 0x04
    static let flagReplace: UInt16 = 0x100
    static let flagExclusive: UInt16 = 0x200
    static let flagCreate: UInt16 = 0x400
    static let flagDump: UInt16 = 0x300
    static let flagDumpInterrupted: UInt16 = 0x10
    static let flagCapped: UInt16 = 0x100
    static let flagAckTLVs: UInt16 = 0x200
    static let messageError: UInt16 = 2
    static let messageDone: UInt16 = 3
    static let solNetlink: Int32 = 270
    static let optionAddMembership: Int32 = 1
    static let optionDropMembership: Int32 = 2
    static let optionCapAck: Int32 = 10
    static let optionExtAck: Int32 = 11
    static let optionStrictCheck: Int32 = 12
    static let attributeTypeMask: UInt16 = 0x3FFF
    static let attributeNested: UInt16 = 0x8000
    static let errorMessage: UInt16 = 1  // NLMSGERR_ATTR_MSG

    // linux/rtnetlink.h: message types and multicast groups
    static let newLink: UInt16 = 16, deleteLink: UInt16 = 17, getLink: UInt16 = 18
    static let newAddress: UInt16 = 20, deleteAddress: UInt16 = 21, getAddress: UInt16 = 22
    static let newRoute: UInt16 = 24, deleteRoute: UInt16 = 25, getRoute: UInt16 = 26
    static let newRule: UInt16 = 32, deleteRule: UInt16 = 33, getRule: UInt16 = 34
    static let newNeighbour: UInt16 = 28, deleteNeighbour: UInt16 = 29, getNeighbour: UInt16 = 30
    static let newNextHop: UInt16 = 104, deleteNextHop: UInt16 = 105, getNextHop: UInt16 = 106
    static let groupLink: UInt32 = 1, groupIPv4Address: UInt32 = 5, groupIPv4Route: UInt32 = 7
    static let groupIPv4Rule: UInt32 = 8, groupIPv6Rule: UInt32 = 19, groupNeighbour: UInt32 = 3, groupNextHop: UInt32 = 32
    static let groupIPv6Address: UInt32 = 9, groupIPv6Route: UInt32 = 11
    static let newUserOption: UInt16 = 68, groupUserOptions: UInt32 = 20

    // struct rtmsg and its attributes
    static let rtmDestination: UInt16 = 1, rtmSource: UInt16 = 2, rtmOutput: UInt16 = 4, rtmGateway: UInt16 = 5
    static let rtmPriority: UInt16 = 6, rtmPreferredSource: UInt16 = 7, rtmMetrics: UInt16 = 8, rtmMultipath: UInt16 = 9
    static let rtmCacheInfo: UInt16 = 12, rtmTable: UInt16 = 15, rtmMark: UInt16 = 16, rtmVia: UInt16 = 18
    static let rtmPreference: UInt16 = 20, rtmNextHop: UInt16 = 30
    static let metricMTU: UInt16 = 2
    // RTAX_ADVMSS
    static let metricSegment: UInt16 = 8
    static let routeUnicast: UInt8 = 1, routeMulticast: UInt8 = 5, routeThrow: UInt8 = 9
    static let nextHopDead: UInt32 = 1, nextHopOnLink: UInt32 = 4, nextHopLinkDown: UInt32 = 16, routeCloned: UInt32 = 0x200,
        routeLookupTable: UInt32 = 0x1000
    /// rtm_protocol and FRA_PROTOCOL of everything we add: tells our routes and rules from everybody else's, also after a crash.
    /// Unassigned in iproute2's rt_protos.
    static let protocolMAT: UInt8 = 162

    // struct nhmsg (linux/nexthop.h) and its attributes
    static let nextHopID: UInt16 = 1, nextHopGroup: UInt16 = 2, nextHopOutput: UInt16 = 5, nextHopGateway: UInt16 = 6

    // struct ndmsg (linux/neighbour.h) and its attributes
    static let neighbourDestination: UInt16 = 1, neighbourLinkAddress: UInt16 = 2
    static let neighbourIncomplete: UInt16 = 0x01, neighbourStale: UInt16 = 0x04, neighbourProbe: UInt16 = 0x10
    /// NTF_USE: as if a packet had to be sent.
    static let neighbourUse: UInt8 = 0x01

    // struct fib_rule_hdr and its attributes
    static let ruleSource: UInt16 = 2, ruleInputName: UInt16 = 3, rulePriority: UInt16 = 6, ruleMark: UInt16 = 10
    static let ruleTable: UInt16 = 15, ruleMarkMask: UInt16 = 16, ruleProtocol: UInt16 = 21
    static let ruleTunnel: UInt16 = 12, ruleSuppressLength: UInt16 = 14, ruleOutputName: UInt16 = 17, ruleMasterDevice: UInt16 = 19
    static let ruleUsers: UInt16 = 20, ruleTransport: UInt16 = 22, ruleSourcePorts: UInt16 = 23, ruleDestinationPorts: UInt16 = 24
    static let ruleInverted: UInt32 = 0x2

    // struct ifinfomsg, ifaddrmsg and their attributes
    static let linkName: UInt16 = 3, linkMTU: UInt16 = 4, linkFamilySpecific: UInt16 = 26
    static let linkInetConfiguration: UInt16 = 1, linkInet6AddressGeneration: UInt16 = 8
    static let configurationReversePath: UInt16 = 8  // IPV4_DEVCONF_RP_FILTER
    static let addressAddress: UInt16 = 1, addressLocal: UInt16 = 2, addressFlags: UInt16 = 8, addressCacheInfo: UInt16 = 6
    static let addressNoDAD: UInt32 = 0x02, addressNoPrefixRoute: UInt32 = 0x200

    // linux/netfilter/nfnetlink.h, nf_tables.h, nfnetlink_log.h
    static let subsystemTables: UInt16 = 10 << 8
    static let subsystemLog: UInt16 = 4 << 8
    static let nftNewTable: UInt16 = 0, nftGetTable: UInt16 = 1, nftDeleteTable: UInt16 = 2, nftNewChain: UInt16 = 3
    static let nftGetChain: UInt16 = 4, nftDeleteChain: UInt16 = 5, nftGetRule: UInt16 = 7
    static let nftNewRule: UInt16 = 6, nftDeleteRule: UInt16 = 8, nftNewSet: UInt16 = 9, nftGetSet: UInt16 = 10
    static let nftDeleteSet: UInt16 = 11, nftNewGeneration: UInt16 = 15, nftGetGeneration: UInt16 = 16
    static let chainTable: UInt16 = 1, chainName: UInt16 = 3, chainHook: UInt16 = 4
    static let ruleTableName: UInt16 = 1, ruleChainName: UInt16 = 2, setName: UInt16 = 2
    static let generationNumber: UInt16 = 1
    /// NFNLGRP_NFTABLES.
    static let groupTables: UInt32 = 7
    /// NFPROTO_INET: both families.
    static let familyInternet: UInt8 = 1
    static let nftNewElement: UInt16 = 12, nftGetElement: UInt16 = 13, nftDeleteElement: UInt16 = 14
    static let elementListTable: UInt16 = 1, elementListSet: UInt16 = 2, elementListElements: UInt16 = 3
    static let listElement: UInt16 = 1
    static let elementKey: UInt16 = 1, elementData: UInt16 = 2, elementExpression: UInt16 = 7
    static let elementTimeout: UInt16 = 4
    // linux/sock_diag.h
    static let netlinkSockets: Int32 = 4
    static let socketsByFamily: UInt16 = 20
    static let dataValue: UInt16 = 1
    static let expressionName: UInt16 = 1, expressionData: UInt16 = 2
    static let counterOctets: UInt16 = 1, counterPackets: UInt16 = 2
    static let logPacket: UInt16 = 0, logConfigure: UInt16 = 1
    static let logConfigureCommand: UInt16 = 1, logConfigureMode: UInt16 = 2
    static let logConfigureTimeout: UInt16 = 4, logConfigureThreshold: UInt16 = 5
    static let logCommandBind: UInt8 = 1
    static let logCopyPacket: UInt8 = 2
    static let logPayload: UInt16 = 9, logPrefix: UInt16 = 10

    // linux/xfrm.h
    static let groupPolicies: UInt32 = 4
    static let xfrmNewPolicyCounts: UInt16 = 0x24, xfrmGetPolicyCounts: UInt16 = 0x25
    static let policyCounts: UInt16 = 1
}
