import IMTKernel
import MATSignal

/// What the kernel holds, as far as a node's core decides it: the two maps, the plain addresses, and their meaning for a packet.
public struct ModelIMT: Sendable {
    public private(set) var outbound: [HomePair: MobilePair] = [:]
    public private(set) var inbound: [MobilePair: HomePair] = [:]
    private var plainUntil: [IPAddress: MonotonicTime] = [:]
    /// Changes that a kernel would refuse, or that can't be meant.
    public private(set) var violations: [String] = []

    public init() {}

    /// One transaction. Later changes win, what is missing is removed without complaint: as `IMTKernel.commit` does it.
    public mutating func apply(_ changes: [IMTChange], now: MonotonicTime) {
        for change in changes {
            switch change {
            case .setOutbound(let home, let mobile):
                check(home, mobile)
                outbound[home] = mobile
            case .removeOutbound(let home): outbound[home] = nil
            case .setInbound(let mobile, let home):
                check(home, mobile)
                inbound[mobile] = home
            case .removeInbound(let mobile): inbound[mobile] = nil
            case .setPlain(let address, let lifetime): plainUntil[address] = now + lifetime
            case .removePlain(let address): plainUntil[address] = nil
            }
        }
    }

    private mutating func check(_ home: HomePair, _ mobile: MobilePair) {
        let family = home.own.isIPv4
        if home.peer.isIPv4 != family || mobile.own.isIPv4 != family || mobile.peer.isIPv4 != family {
            violations.append("\(home) over \(mobile) mixes IPv4 and IPv6")
        }
        if mobile.own == mobile.peer { violations.append("\(home) over \(mobile): a packet to oneself") }
    }

    public func isPlain(_ address: IPAddress, now: MonotonicTime) -> Bool { plainUntil[address].map { $0 > now } ?? false }

    /// What an earlier run left behind.
    public mutating func adopt(outbound: [HomePair: MobilePair], inbound: [MobilePair: HomePair]) {
        self.outbound = outbound
        self.inbound = inbound
    }
}
