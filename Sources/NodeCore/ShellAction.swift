import IMTPlan
import MATCore
import MATSignal

/// What a node wants its shell to do. The shell does it in order, asks nothing, and says what became of it where that is written here.
package enum ShellAction: Hashable, Sendable {
    /// A datagram, from the given own address.
    case send([UInt8], from: IPAddress, to: Endpoint)
    /// Likewise, only while what waits to leave is little; see `NodeAction.sendIfRoom`.
    case sendIfRoom([UInt8], from: IPAddress, to: Endpoint)
    /// A message inside an encapsulated packet.
    case sendInPath(InPathMessage)
    /// Open this port, have datagrams from an own address leave from it, and tell `Node.usesPort` if that was possible.
    case usePort(UInt16, for: IPAddress)
    /// Find the IMSs of this HoA in the DNS for a core, and tell `Node.lookedUp`.
    case lookUp(HomeAddress, core: Int)
    /// Find the IMS keys at this prefix's own name for a core, and tell `Node.keysLookedUp`.
    case lookUpKeys(IPPrefix, core: Int)
    /// The network is another: forget what was learned of names in the one before, read who answers for them now, and tell `Node.namesRead`.
    case readNames
    /// Ask the network's own resolvers whether it has a NAT64 (RFC 7050), and tell `Node.translatorSought`.
    case findTranslator
    /// One kernel transaction, with the addresses of links that are the node's from now on, if they may be others than before.
    case changeIMT([IMTChange], linkAddresses: [LocalAddress]?)
    /// Send these on by the route that they have now, as packets of this own HoA, and tell `Node.exited`.
    case release(HeldOffer, from: HomeAddress?)
    /// Send these on as if nothing had captured them: by the main table's route, if it has one of its own, or else out of this link.
    case pass([HeldPacket], to: IPAddress, by: String?)
    /// Let these in.
    case deliver([HeldPacket])
    /// Keep the highest sequence signed for this HoA across restarts.
    case remember(HomeAddress, sequence: UInt64)
    /// Keep a renewed certificate.
    case keepCertificate(Certificate)
    case log(NodeLogLevel, String)
    /// This HoA is the node's as well, until it leaves it: all packets of it go in datagrams.
    case enterHome(HomeAddress)
    case leaveHome(HomeAddress)
    /// What a program that asked for a visited home gets.
    case answerVisit(VisitingProgram, VisitAnswer)
}
