import MATSignal

/// Which destinations a node talks to as its HoA. Only their traffic is captured by the TUN device.
public enum TrafficSelection: Hashable, Sendable {
    case everything
    case prefixes([IPPrefix])
    /// Nothing is captured: the node only answers as its HoA (a server that never starts a conversation).
    case nothing
}

/// Whether the kernel tracks connections with peers. It costs each packet; but a firewall that asks for their state needs it.
public enum ConnectionTracking: String, CaseIterable, Hashable, Sendable {
    /// While another program has nftables or iptables rules on this host.
    case auto
    case always
    case never
}

/// Where packets are put into datagrams and taken out.
public enum EncapsulationPlace: String, CaseIterable, Hashable, Sendable {
    /// In the kernel where that can be had, else in the agent.
    case auto
    case agent
    /// As `auto`: where it can't be had is said either way.
    case kernel
}

/// By what TCP's and UDP's addresses are rewritten, of peers that are reached directly.
public enum DataPlane: String, CaseIterable, Hashable, Sendable {
    case nftables
    /// By programs at the links, where they can be had; nftables does what they leave.
    case bpf
}

/// What the kernel side of a node is to look like. Numbers and names are configurable because other software on the host
/// may use the same ones; every one of them must differ between two agents in one network namespace.
public struct IMTConfiguration: Hashable, Sendable {
    /// The node's HoAs. Each is carried by the TUN device (/32, /128) unless another link already has it.
    public var homeAddresses: [HomeAddress]
    /// HoAs that networks lend this node while programs use them, each in a place of its own, by which its routing table is numbered. Their packets
    /// all travel in datagrams, so that the tables need no rule for them; each has a HoA of its family beside it in `homeAddresses`.
    package internal(set) var visitedHomes: [HomeAddress?] = []
    /// Home prefixes of mobile networks, longer than one address: by their base addresses, which are among the HoAs. A MoA of such a
    /// HoA is the base address of a prefix of equal length (MoPre).
    public var homePrefixes: [IPPrefix] = []
    /// The base addresses of the MoPres that this node may get. The TUN device carries them: the signalling of a mobile router comes from there.
    public var mobilePrefixes: [IPPrefix] = []
    public var traffic: TrafficSelection
    /// Resolvers, IMSs and the like: never captured, and their packets never questioned. At most `alwaysPlainMax`.
    public var alwaysPlain: [IPPrefix]
    /// Destinations that are no HoAs, as the person who runs the node knows: never captured. Packets from there are questioned like others,
    /// because a peer may move there. At most `exceptionsMax`.
    public var exceptions: [IPPrefix] = []
    /// Name of the TUN device: at most 15 octets.
    public var deviceName: String
    /// The routing table that captures; per-link tables are numbered from here by interface index. Over 255, so that it fits no
    /// reserved table.
    public var routingTable: UInt32
    /// The first of 16 rule priorities used; below 32766, so that the rules come before the main table's.
    public var rulePriorityBase: UInt32
    /// Whether our rules move before those of other programs that would take everything; see `RulePlace`.
    public var keepsRulesFirst = true
    /// Mark of the agent's own sockets, whose packets are never captured.
    public var mark: UInt32
    /// Mark of packets that were held and are on their way again: such a packet is not held a second time.
    public var releaseMark: UInt32 { mark ^ 1 }
    /// Mark of packets that the kernel's programs have taken out of datagrams, from there to the first rule that they meet.
    public var unwrappedMark: UInt32 { mark ^ 2 }
    /// Whether other programs are kept from changing the tables, where the kernel can do that.
    public var protectsTables = true
    /// NFLOG group through which packets from unknown sources arrive; 1...65535 and used by nobody else.
    public var nflogGroup: UInt16
    public var connectionTracking = ConnectionTracking.auto
    /// Whether strict reverse path filtering of the MoAs' links is loosened, or only warned of.
    public var loosensReversePath = false

    public var encapsulation = EncapsulationPlace.agent
    public var dataPlane = DataPlane.nftables
    /// Where programs and their maps are pinned, in a directory for each network namespace and device: in a file system of BPF objects.
    public var programDirectory = "/sys/fs/bpf/mat"
    /// Whether programs are tied to links by classifiers only, as on kernels before 6.6.
    public var usesClassifiers = false

    /// Between two looks at the routers of a link with several.
    package var routerInterval: Duration = .seconds(10)

    public static let alwaysPlainMax = 64
    public static let exceptionsMax = 256
    public static let homeAddressesMax = 64
    public static let visitedHomesMax = 16
    public static let mobilePrefixesMax = 64

    public init(
        homeAddresses: [HomeAddress] = [], traffic: TrafficSelection = .everything, alwaysPlain: [IPPrefix] = [],
        deviceName: String = "mat0", routingTable: UInt32 = 6288, rulePriorityBase: UInt32 = 6270, mark: UInt32 = 0x6288,
        nflogGroup: UInt16 = 6288
    ) {
        self.homeAddresses = homeAddresses
        self.traffic = traffic
        self.alwaysPlain = alwaysPlain
        self.deviceName = deviceName
        self.routingTable = routingTable
        self.rulePriorityBase = rulePriorityBase
        self.mark = mark
        self.nflogGroup = nflogGroup
    }

    /// What can't work, found before anything is touched.
    package func check() throws(PlanError) {
        let operation = "check the kernel configuration"
        guard (1...15).contains(deviceName.utf8.count), !deviceName.contains("/"), !deviceName.contains(" ") else {
            throw PlanError(operation, "device name \"\(deviceName)\" must be 1 to 15 octets without slash or space")
        }
        guard routingTable > 255, routingTable < 1 << 24 else {
            throw PlanError(operation, "routing table \(routingTable) must be between 256 and 16777215")
        }
        guard rulePriorityBase > 0, rulePriorityBase < 32_750 else {
            throw PlanError(
                operation, "rule priority \(rulePriorityBase) must be between 1 and 32749, before the main table's rule")
        }
        guard mark > 1 else { throw PlanError(operation, "mark \(mark): 0 would exempt all traffic, and 1 leaves 0 to released packets") }
        guard nflogGroup != 0 else { throw PlanError(operation, "NFLOG group 0 belongs to the kernel's log") }
        guard alwaysPlain.count <= Self.alwaysPlainMax else {
            throw PlanError(operation, "\(alwaysPlain.count) always-plain prefixes, at most \(Self.alwaysPlainMax)")
        }
        guard exceptions.count <= Self.exceptionsMax else {
            throw PlanError(operation, "\(exceptions.count) prefixes that are never captured, at most \(Self.exceptionsMax)")
        }
        guard homeAddresses.count <= Self.homeAddressesMax else {
            throw PlanError(operation, "\(homeAddresses.count) home addresses, at most \(Self.homeAddressesMax)")
        }
        guard mobilePrefixes.count <= Self.mobilePrefixesMax else {
            throw PlanError(operation, "\(mobilePrefixes.count) mobile prefixes, at most \(Self.mobilePrefixesMax)")
        }
        for prefix in homePrefixes where !homeAddresses.contains(HomeAddress(prefix.address)) {
            throw PlanError(operation, "the base address of home prefix \(prefix) is not among the home addresses")
        }
        for home in homeAddresses where !home.address.isUsableUnicast {
            throw PlanError(operation, "\(home) can't be a home address: it is not a global unicast address")
        }
    }

    /// The home prefix that a HoA stands for; `nil` if it stands for itself.
    package func network(of home: HomeAddress) -> IPPrefix? { homePrefixes.first { $0.address == home.address && $0.length < 128 } }

    /// Own and visited ones.
    package var allHomes: [HomeAddress] { homeAddresses + visitedHomes.compactMap { $0 } }

    /// Takes in a visited home.
    package mutating func enter(_ home: HomeAddress) throws(PlanError) {
        let operation = "visit as \(home)"
        guard !allHomes.contains(home) else { throw PlanError(operation, "the address is a home already") }
        guard home.address.isUsableUnicast else { throw PlanError(operation, "it is not a global unicast address") }
        guard primaryHome(family: home.family) != nil else { throw PlanError(operation, "there is no home address of \(home.family) beside it") }
        if let free = visitedHomes.firstIndex(of: nil) {
            visitedHomes[free] = home
        } else {
            guard visitedHomes.count < Self.visitedHomesMax else { throw PlanError(operation, "\(visitedHomes.count) homes are visited") }
            visitedHomes.append(home)
        }
    }

    /// Lets go of a visited home.
    package mutating func leave(_ home: HomeAddress) {
        guard let place = visitedHomes.firstIndex(of: home) else { return }
        visitedHomes[place] = nil
        while case .some(nil) = visitedHomes.last { visitedHomes.removeLast() }
    }

    /// The node's HoA of a family that new conversations start from.
    package func primaryHome(family: AddressFamily) -> HomeAddress? { homeAddresses.first { $0.family == family } }
}
