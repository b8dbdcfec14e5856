import MATSignal

/// An address of this host on a real link: a MoA, if the agent wants it.
public struct LocalAddress: Hashable, Sendable {
    public var address: IPAddress
    public var interface: String
    public var interfaceIndex: UInt32
    /// As people write it: 24 for an IPv4 /24.
    public var prefixLength: UInt8
    /// Duplicate address detection has not finished; nothing may be sent from it yet.
    public var isTentative: Bool
    /// Not for new conversations: its network is about to take it away.
    public var isDeprecated: Bool
    /// Somebody else has it.
    public var dadFailed: Bool
    /// Administratively up, and with a carrier.
    public var linkUp: Bool
    /// Where the main table's best default route over this link goes; `nil` if there is none, or none is needed (point to point).
    public var gateway: IPAddress?
    public var hasDefaultRoute: Bool
    /// Global or site scope (the kernel's), rather than link or host.
    public var isGlobalScope: Bool

    public init(
        address: IPAddress, interface: String, interfaceIndex: UInt32, prefixLength: UInt8, isTentative: Bool = false,
        isDeprecated: Bool = false, dadFailed: Bool = false, linkUp: Bool = true, gateway: IPAddress? = nil,
        hasDefaultRoute: Bool = false, isGlobalScope: Bool = true
    ) {
        self.address = address
        self.interface = interface
        self.interfaceIndex = interfaceIndex
        self.prefixLength = prefixLength
        self.isTentative = isTentative
        self.isDeprecated = isDeprecated
        self.dadFailed = dadFailed
        self.linkUp = linkUp
        self.gateway = gateway
        self.hasDefaultRoute = hasDefaultRoute
        self.isGlobalScope = isGlobalScope
    }

    /// The addresses that are on the link with it; `nil` if it stands alone there.
    public var onLink: IPPrefix? {
        let length = Int(prefixLength) + Int(address.family.leadingBits)
        return length < 128 ? IPPrefix(covering: address, length: UInt8(length)) : nil
    }

    /// Whether packets can be sent from it now. Says nothing of whether they arrive.
    public var isUsable: Bool { isGlobalScope && address.isUsableUnicast && linkUp && !isTentative && !dadFailed }
}

/// A router of a link with several, that does not answer.
public struct SilentRouter: Hashable, Sendable {
    public var address: IPAddress
    public var interface: String
    /// Which is used in its place; `nil` if none answers.
    public var instead: IPAddress?

    public init(address: IPAddress, interface: String, instead: IPAddress? = nil) {
        self.address = address
        self.interface = interface
        self.instead = instead
    }
}

/// All that may be a MoA, and what leads away from it. Without loopback and the TUN device.
public struct LinkSnapshot: Hashable, Sendable {
    /// In the system's order: links by their default routes' metrics, and on each link as `AddressRank` says.
    public var addresses: [LocalAddress]
    /// Every gateway of the main table: never a peer's locator.
    public var gateways: [IPAddress]
    /// Routers that are passed over because they do not answer.
    public var silentRouters: [SilentRouter] = []

    public init(addresses: [LocalAddress] = [], gateways: [IPAddress] = []) {
        self.addresses = addresses
        self.gateways = gateways
    }

    public var usable: [LocalAddress] { addresses.filter(\.isUsable) }
}
