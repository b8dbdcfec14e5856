import IMTPlan
import MATSignal
import NodeCore

/// What a node's shell stands on: a machine (`SystemEnvironment`), or a simulation of one. It decides nothing. What fails is its own to tell, in the
/// log: the node finds out from what does not happen.
package protocol NodeEnvironment: AnyObject {
    // MARK: Time

    var now: Now { get }
    /// Whether NTP keeps the wall clock right.
    var isClockSynchronized: Bool { get }
    /// Has `NodeShell.timerFired` called at that time, instead of at one that was given for this timer before; `nil`: not at all.
    func set(_ timer: NodeTimer, at time: MonotonicTime?)

    // MARK: Network

    /// - Parameter ifRoom: only while what waits to leave is little.
    func send(_ datagram: [UInt8], from own: IPAddress, to target: Endpoint, ifRoom: Bool)
    func sendInPath(_ message: InPathMessage)
    /// Has what leaves from an own address leave from this port, and receives there.
    ///
    /// - Returns: whether it could.
    func use(port: UInt16, for own: IPAddress) -> Bool
    /// Calls back once, perhaps before it returns.
    func lookUp(_ hoa: HomeAddress, _ completion: @escaping (ServerLookup) -> Void)
    func lookUpKeys(_ prefix: IPPrefix, _ completion: @escaping (ServerLookup) -> Void)
    /// Asks the network's own resolvers by which prefix its NAT64 is reached (RFC 7050). Calls back once, perhaps before it returns; not at all
    /// if it is called again before.
    func findTranslator(_ completion: @escaping (NAT64Answer) -> Void)
    /// Forgets what was learned of names in another network, and reads who answers for them now.
    ///
    /// - Returns: whether these are others than before.
    func readNames() -> (servers: NameServers, areOthers: Bool)

    // MARK: Kernel

    func commit(_ changes: [IMTChange], linkAddresses: [LocalAddress]?)
    /// Sends what is held on, in order, until the kernel refuses one.
    func release(_ offer: HeldOffer, from home: HomeAddress?) -> HeldExit
    func pass(_ packets: [HeldPacket], to destination: IPAddress, by interface: String?)
    func deliver(_ packets: [HeldPacket])
    /// A visited home is the node's from now on, or no more.
    func enter(_ home: HomeAddress)
    func leave(_ home: HomeAddress)
    /// How many packets were exchanged with each peer so far.
    func packetCounts() -> [HomePair: PeerPackets]
    /// Has `NodeShell.used` called when a packet leaves for a peer, or not any more.
    ///
    /// - Returns: whether it will be called.
    func awaitUse(_ isOn: Bool) -> Bool
    /// What the path in datagrams of each of these peers has carried so far.
    func pathUses(of pairs: [HomePair]) -> [PathUse]
    /// What was rewritten for these peers so far.
    func rewrittenUses(of paths: [RewrittenPath]) -> [RewrittenUse]

    // MARK: Programs

    /// What a program gets that asked for a visited home.
    func answer(_ program: VisitingProgram, _ answer: VisitAnswer)

    // MARK: Files

    func keep(sequence: UInt64, of hoa: HomeAddress)
    func keep(_ certificate: Certificate)
    func log(_ level: NodeLogLevel, _ text: String)
}

/// A shell's timers.
package enum NodeTimer: Hashable, Sendable, CaseIterable {
    /// The node's next deadline.
    case deadline
    /// The next reading of the kernel's packet counts.
    case counts
    /// The next reading of what paths in datagrams carry, while packets go there.
    case pathUses
}
