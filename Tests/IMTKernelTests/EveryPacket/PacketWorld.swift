import Foundation
import Glibc
import IMTPlan
import MATSignal
import Namespaces

@testable import IMTKernel
@testable import IMTPlan

/// One node, and everything beyond its link played by hand:
///
///     node  wlan 10.1.0.2/24, 2001:db8:1::2/64 ──── r1 10.1.0.1, 2001:db8:1::1  world
///
///     of a further HoA also 10.1.0.3, 2001:db8:1::3;  renumbered 10.1.0.4, 2001:db8:1::4
///     of a mobile network:  a host at 192.0.2.18 in 192.0.2.16/28, on the wire 10.101.0.82; 2001:db8:f000:3::2, 2001:db8:f100:5::2
///
/// The world answers nothing but the node's questions for neighbours. Packets are put on its end of the link with whatever addresses
/// they shall have; what comes out there is what the node sent. Each packet under test has hosts of its own (`Party`), so that
/// hundreds can be under way together and none touches what another left behind in the kernel.
final class PacketWorld {
    /// Whom an address outside belongs to.
    enum Role: UInt8, CaseIterable {
        case peer = 1
        /// The locator that packets come from.
        case locator
        /// The peer's locator before.
        case formerLocator
        /// The HoA of the other that a locator was proven to be.
        case other
        case router
    }

    struct Party: Hashable {
        var role: Role
        var index: Int
    }

    let node: Namespace
    let world: Namespace
    /// Where the sockets are: the node, or the host behind it.
    let stack: Namespace
    let host: Host
    let place: Place
    private let capturesNothing: Bool
    private var link: Int32 = -1
    private var tap: Int32 = -1
    private var fences: UInt8 = 0
    private var rawSockets: [(descriptor: Int32, isIPv4: Bool)] = []
    /// What left the node, network header first, since it was last asked for.
    private var leftNode: [[UInt8]] = []

    static let nodeHardware: [UInt8] = [2, 0, 0, 0, 0, 2], worldHardware: [UInt8] = [2, 0, 0, 0, 0, 1]
    private static func address(_ v4: UInt32, _ v6: (UInt64, UInt64), _ isIPv4: Bool) -> IPAddress {
        isIPv4 ? IPAddress(ipv4: v4) : IPAddress(high: v6.0, low: v6.1)
    }
    /// 10.1.0.n, 2001:db8:1::n
    private static func onLink(_ last: UInt8, _ isIPv4: Bool) -> IPAddress {
        address(0x0A01_0000 | UInt32(last), (0x2001_0db8_0001_0000, UInt64(last)), isIPv4)
    }
    /// 192.0.2.n, 2001:db8:a::n
    private static func unhomed(_ last: UInt8, _ isIPv4: Bool) -> IPAddress {
        address(0xC000_0200 | UInt32(last), (0x2001_0db8_000a_0000, UInt64(last)), isIPv4)
    }

    private static func homeNetwork(_ last: UInt8, _ isIPv4: Bool) -> IPAddress {
        address(0xC000_0210 | UInt32(last), (0x2001_0db8_f000_0003, UInt64(last)), isIPv4)
    }
    private static func mobileNetwork(_ last: UInt8, _ isIPv4: Bool) -> IPAddress {
        address(0x0A65_0050 | UInt32(last), (0x2001_0db8_f100_0005, UInt64(last)), isIPv4)
    }
    private static func networkLength(_ isIPv4: Bool) -> UInt8 { isIPv4 ? 28 : 64 }

    /// The own MoA that packets are for, and the HoA that sockets have.
    func moa(_ isIPv4: Bool) -> IPAddress { place == .network ? Self.mobileNetwork(2, isIPv4) : linkAddress(isIPv4) }
    func home(_ isIPv4: Bool) -> IPAddress {
        switch place {
        case .away: Self.unhomed(1, isIPv4)
        case .atHome: linkAddress(isIPv4)
        case .further: Self.unhomed(2, isIPv4)
        case .network: Self.homeNetwork(2, isIPv4)
        }
    }
    /// The address on the link that comes and goes.
    func linkAddress(_ isIPv4: Bool) -> IPAddress { Self.onLink(place == .further ? 3 : 2, isIPv4) }
    /// MoA and HoA as the node knows them: of a network, the base addresses.
    func entry(_ isIPv4: Bool) -> (moa: MobileAddress, home: HomeAddress) {
        place == .network
            ? (MobileAddress(Self.mobileNetwork(0, isIPv4)), HomeAddress(Self.homeNetwork(0, isIPv4)))
            : (MobileAddress(moa(isIPv4)), HomeAddress(home(isIPv4)))
    }
    /// The address that comes when the node is renumbered.
    func newAddress(_ isIPv4: Bool) -> IPAddress { Self.onLink(4, isIPv4) }
    /// The node's MoAs on the link, each with its HoA.
    private func homes(_ isIPv4: Bool) -> [(moa: IPAddress, home: HomeAddress)] {
        (place == .further ? [(Self.onLink(2, isIPv4), HomeAddress(Self.unhomed(1, isIPv4)))] : []) + [
            (linkAddress(isIPv4), entry(isIPv4).home)
        ]
    }
    /// HoAs that must not be seen outside.
    func hiddenHomes(_ isIPv4: Bool) -> [IPAddress] { place == .atHome ? [] : [home(isIPv4)] + homes(isIPv4).map(\.home.address) }

    private var configuration: IMTConfiguration {
        var made = IMTConfiguration(homeAddresses: [true, false].flatMap { homes($0).map(\.home) })
        if capturesNothing { made.traffic = .nothing }
        guard place == .network else { return made }
        let entries = [true, false].map { ($0, entry($0)) }
        func prefix(_ address: IPAddress) -> IPPrefix {
            IPPrefix(covering: address, length: Self.networkLength(address.isIPv4) + (address.isIPv4 ? 96 : 0))
        }
        made.homePrefixes = entries.map { prefix($0.1.home.address) }
        made.mobilePrefixes = entries.map { prefix($0.1.moa.address) }
        return made
    }

    static func address(_ role: Role, _ index: Int, _ isIPv4: Bool) -> IPAddress {
        // 20.0.0.0/8 and documentation addresses: nothing that any rule treats by itself.
        isIPv4
            ? IPAddress(ipv4: 20 << 24 | UInt32(role.rawValue) << 16 | UInt32(index + 1))
            : IPAddress(high: 0x2001_0db8_1000_0000 | UInt64(role.rawValue) << 16, low: UInt64(index + 1))
    }

    static func party(_ address: IPAddress) -> Party? {
        if let v4 = address.ipv4 {
            guard v4 >> 24 == 20, let role = Role(rawValue: UInt8(v4 >> 16 & 0xFF)) else { return nil }
            return Party(role: role, index: Int(v4 & 0xFFFF) - 1)
        }
        guard address.high >> 32 == 0x2001_0db8, address.high & 0xF000_0000 == 0x1000_0000,
            let role = Role(rawValue: UInt8(address.high >> 16 & 0xFF))
        else { return nil }
        return Party(role: role, index: Int(truncatingIfNeeded: address.low) - 1)
    }

    init(_ place: Place, capturesNothing: Bool = false) throws {
        self.place = place
        self.capturesNothing = capturesNothing
        node = try Namespace.host("node")
        world = try Namespace.host("world")
        host = Host(node)
        stack = place == .network ? try Namespace.host("inner") : node
        try shell(
            "ip -n \(node.name) link add wlan address \(Self.text(Self.nodeHardware)) type veth peer name r1 address "
                + "\(Self.text(Self.worldHardware)) netns \(world.name)")
        try batch(node, ["link set wlan up"] + [true, false].flatMap { isIPv4 in homes(isIPv4).map { line("add", $0.moa) } })
        try batch(world, ["link set r1 up", "addr add 10.1.0.1/24 dev r1", "addr add 2001:db8:1::1/64 dev r1 nodad"])
        try awaitCarrier([(node, "wlan"), (world, "r1")])
        try batch(node, routes)
        if place == .network { try addNetwork() }
        // Every answer that the stack would give is to be seen, not one a second.
        for namespace in place == .network ? [node, stack] : [node] {
            try namespace.run("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 net.ipv4.tcp_invalid_ratelimit=0")
            _ = namespace.attempt("sysctl -qw net.ipv4.icmp_msgs_per_sec=1000000 net.ipv4.icmp_msgs_burst=1000000")
        }
        try openSockets()
        try host.start(configuration)
        try awaitLocal(homes(false).flatMap { [$0.moa] + (place == .network ? [] : [$0.home.address]) })
        try adoptLocators()
    }

    deinit {
        for descriptor in [link, tap] + rawSockets.map(\.descriptor) where descriptor >= 0 { close(descriptor) }
        host.finish(leaving: false)
    }

    private static func text(_ hardware: [UInt8]) -> String { hardware.map { String($0, radix: 16) }.joined(separator: ":") }
    private func line(_ verb: String, _ address: IPAddress) -> String {
        "addr \(verb) \(address)/\(address.isIPv4 ? 24 : 64) dev wlan" + (verb == "add" && !address.isIPv4 ? " nodad" : "")
    }
    /// With the router's hardware address: a first question for it that is lost, while the link comes up, is repeated only after a second, and
    /// what waits for the answer would leave long after it was looked for.
    private let routes = ["10.1.0.1", "2001:db8:1::1"].flatMap { router in
        [
            "neigh replace \(router) lladdr \(PacketWorld.text(PacketWorld.worldHardware)) dev wlan nud permanent",
            "route replace default via \(router) dev wlan",
        ]
    }

    private func batch(_ namespace: Namespace, _ lines: [String]) throws {
        try shell("printf '%s\\n' \(lines.map { "'\($0)'" }.joined(separator: " ")) | ip -n \(namespace.name) -batch -")
    }

    /// The kernel tells of a link's carrier later than it has it, up to a second on a machine with other work. Until then the link is not
    /// used by the kernel side, and IPv6 lets nothing out.
    private func awaitCarrier(_ links: [(Namespace, String)]) throws {
        for (namespace, device) in links {
            guard eventually(within: 10, { shellStatus("ip -n \(namespace.name) -o link show \(device)").output.contains("state UP") }) else {
                throw ShellError("\(device) does not come up")
            }
        }
    }

    private func addNetwork() throws {
        try shell("ip -n \(node.name) link add lan type veth peer name eth0 netns \(stack.name)")
        func lines(_ device: String, _ last: UInt8) -> [String] {
            ["link set \(device) up"]
                + [true, false].map {
                    "addr add \(Self.homeNetwork(last, $0))/\(Self.networkLength($0)) dev \(device)" + ($0 ? "" : " nodad")
                }
        }
        try batch(node, lines("lan", 1))
        try batch(stack, lines("eth0", 2) + [true, false].map { "route add default via \(Self.homeNetwork(1, $0))" })
        try awaitCarrier([(node, "lan"), (stack, "eth0")])
        // Each knows the other's hardware address: a first question that is lost is repeated only after a second.
        for isIPv4 in [true, false] { try node.run("ping -q -c 1 -W 5 \(Self.homeNetwork(2, isIPv4))") }
        try node.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    }

    private func openSockets() throws {
        (link, tap) = try world.inside {
            // AF_PACKET 17; protocol 0 receives nothing, ETH_P_ALL (3, in network order) everything.
            (
                socket(17, Int32(SOCK_DGRAM.rawValue), 0),
                socket(17, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0x0300)
            )
        }
        let protocols: [(Int32, Bool)] = [(6, true), (17, true), (1, true), (6, false), (17, false), (58, false)]
        rawSockets = try stack.inside {
            protocols.map { (socket($1 ? AF_INET : AF_INET6, TestSocket.raw | Int32(SOCK_NONBLOCK.rawValue), $0), $1) }
        }
        for descriptor in [link, tap] + rawSockets.map(\.descriptor) {
            guard descriptor >= 0 else { throw ShellError("raw socket: \(errno)") }
            var size: Int32 = 8 << 20
            setsockopt(descriptor, SOL_SOCKET, 33, &size, 4)  // SO_RCVBUFFORCE
            var one: Int32 = 1
            // IPV6_RECVPKTINFO; elsewhere refused.
            setsockopt(descriptor, 41, 49, &one, 4)
        }
    }

    // MARK: The node's address, and in place of the agent

    func removeAddress() throws { try batch(node, [true, false].map { line("del", linkAddress($0)) }) }
    func addAddress(_ address: (Bool) -> IPAddress) throws {
        try batch(node, [true, false].map { line("add", address($0)) } + routes)
        try awaitLocal([address(false)])
    }

    /// IPv6 takes packets for an address only when a work queue has entered its route, a while after the address is shown. The kernel is asked as an
    /// arriving packet would ask.
    private func awaitLocal(_ addresses: [IPAddress]) throws {
        for address in addresses {
            let route = "ip -n \(node.name) -6 route get \(address) from 2001:db8:1::1 iif wlan"
            let tentative = "ip -n \(node.name) -6 addr show to \(address) tentative"
            let isReady = eventually(within: 10) { shellStatus(route).output.hasPrefix("local ") && shellStatus(tentative).output.isEmpty }
            guard isReady else { throw ShellError("no local route of \(address)") }
        }
    }

    /// What the kernel knows of the node's addresses, and what it has dropped: for a person who looks for a cause.
    func kernelsView() -> String {
        let arrivals = [(true, "10.1.0.1"), (false, "2001:db8:1::1")].map { "ip route get \(linkAddress($0)) from \($1) iif wlan" }
        return node.attempt("sh -c '\(arrivals.joined(separator: "; ")); ip addr; nstat -as; cat /proc/net/softnet_stat' 2>&1").output
    }

    /// Makes the usable addresses the node's MoAs, and no others; of a mobile network, its prefix with them.
    func adoptLocators() throws {
        let homes = Dictionary(uniqueKeysWithValues: (homes(true) + homes(false)).map { ($0.moa, $0.home) })
        let entries = [true: entry(true), false: entry(false)]
        let isNetwork = place == .network
        try host.ask { kernel in
            let usable = try kernel.currentLinks().usable.filter { homes[$0.address] != nil }
            let own = usable.compactMap { locator -> (locator: LocalAddress, home: HomeAddress)? in
                guard let entry = entries[locator.address.isIPv4] else { return nil }
                var mine = locator
                if isNetwork { mine.address = entry.moa.address }
                return (mine, isNetwork ? entry.home : homes[locator.address] ?? entry.home)
            }
            try kernel.setOwnLocators(isNetwork ? usable + own.map(\.locator) : usable)
            let gone = kernel.tables.model.own.keys.filter { moa in !own.contains { $0.locator.address == moa.address } }.sorted()
            try kernel.commit(own.map { .setOwn(MobileAddress($0.locator.address), $0.home) } + gone.map { .removeOwn($0) })
        }
    }

    /// Waits until the kernel side, though not the agent, has seen whether the address is there.
    func awaitLinks(_ address: (Bool) -> IPAddress, present: Bool) -> Bool {
        let isSeen = eventually {
            [true, false].allSatisfy { isIPv4 in
                (host.lastLinks?.usable.contains { $0.address == address(isIPv4) } ?? false) == present
            }
        }
        // What follows from the links alone is written right after they are told: done when its thread does something else.
        _ = try? host.ask { _ in }
        return isSeen
    }

    /// Waits until the kernel side has seen everything that was done to the link before: an address that came back was there already, so that
    /// it is there now says nothing. What is told of the link is told in order.
    func awaitAllSeen() throws -> Bool {
        let marker: (Bool) -> IPAddress = { Self.onLink(200, $0) }
        try addAddress(marker)
        guard awaitLinks(marker, present: true) else { return false }
        try batch(node, [true, false].map { line("del", marker($0)) })
        return awaitLinks(marker, present: false)
    }

    func commit(_ changes: [IMTChange]) throws { try host.ask { try $0.commit(changes) } }

    /// Whether a flush of the ruleset passes our tables over.
    func isProtected() throws -> Bool { try host.ask { kernel in kernel.tables.protection == .owned } }

    // MARK: In and out

    /// Of packets that nobody has taken from a processor's queue, so many at most: it holds 1000 (net.core.netdev_max_backlog), of all links, and on
    /// a machine with other work they are taken from it late. What comes to a full queue is lost.
    private static let underWayMax = 100
    private var underWay = 0

    func send(_ packet: [UInt8]) throws {
        try transmit(packet, etherType: packet[0] >> 4 == 4 ? 0x0800 : 0x86DD)
        try noteSent()
    }

    /// A packet was put on the link, at either end.
    func noteSent() throws {
        underWay += 1
        if underWay >= Self.underWayMax { try fence() }
    }

    private func transmit(_ octets: [UInt8], etherType: Int) throws {
        let index = try linkIndex()
        // struct sockaddr_ll: family 2, protocol 2 (network order), interface 4, hardware type 2, packet type 1, length 1, address 8.
        let destination =
            nativeOctets(UInt16(17)) + RawPacket.big(etherType) + nativeOctets(index) + [0, 0, 0, 6] + Self.nodeHardware + [0, 0]
        let sent = destination.withUnsafeBytes { raw in
            octets.withUnsafeBytes { payload in
                raw.baseAddress.map {
                    sendto(
                        link, payload.baseAddress, payload.count, 0, $0.assumingMemoryBound(to: sockaddr.self),
                        socklen_t(raw.count))
                } ?? -1
            }
        }
        guard sent == octets.count else { throw ShellError("put on the link: \(String(cString: strerror(errno)))") }
    }

    private var knownLinkIndex: UInt32 = 0
    private func linkIndex() throws -> UInt32 {
        if knownLinkIndex == 0 { knownLinkIndex = try world.inside { if_nametoindex("r1") } }
        return knownLinkIndex
    }

    /// Returns when the node has done with everything that was sent before: it answers a question for the HoA's hardware address, which passes the same
    /// queues and no rule of nftables. Sender and receiver must stay on one processor.
    func fence() throws {
        underWay = 0
        // To a host behind the node, and what that says back, is a queue more at each end.
        for _ in 0..<(place == .network ? 4 : 1) { try fenceOnce() }
    }

    private func fenceOnce() throws {
        fences = fences % 100 + 1
        let asker: [UInt8] = [10, 1, 0, 100 + fences]
        // ARP: Ethernet 1, IPv4, lengths 6 and 4, request 1.
        let question =
            [0, 1, 8, 0, 6, 4, 0, 1] + Self.worldHardware + asker + [0, 0, 0, 0, 0, 0] + entry(true).home.address.packetOctets
        // Asked again, since other tests' packets may fill the queue; an answer to the first is as good.
        for _ in 0..<5 {
            try transmit(question, etherType: 0x0806)
            let end = Date().addingTimeInterval(2)
            while Date() < end {
                var wait = pollfd(fd: tap, events: Int16(POLLIN), revents: 0)
                guard poll(&wait, 1, 100) > 0 else { continue }
                if readTap(until: asker) { return }
            }
        }
        let shown = node.attempt("ip addr; ip route get \(IPAddress(octets: asker[...]).map { "\($0)" } ?? "?"); ip neigh; nstat -az | grep -i arp")
        throw ShellError("the node does not answer for \(entry(true).home): \(shown)")
    }

    /// - Returns: whether the answer to this asker has come.
    private func readTap(until asker: [UInt8]) -> Bool {
        var buffer = [UInt8](repeating: 0, count: 4096)
        var address = [UInt8](repeating: 0, count: 20)
        var isThrough = false
        while true {
            var length = socklen_t(address.count)
            let got = address.withUnsafeMutableBytes { raw in
                raw.baseAddress.map {
                    recvfrom(tap, &buffer, buffer.count, 0, $0.assumingMemoryBound(to: sockaddr.self), &length)
                } ?? -1
            }
            guard got > 0 else { return isThrough }
            // PACKET_OUTGOING 4: what we sent ourselves.
            guard address[10] != 4 else { continue }
            switch (address[2], address[3]) {
            case (8, 6): if got >= 28, buffer[7] == 2, Array(buffer[24..<28]) == asker { isThrough = true }
            case (8, 0), (0x86, 0xDD): leftNode.append(Array(buffer[0..<got]))
            default: break
            }
        }
    }

    func takeLeft() -> [[UInt8]] {
        defer { leftNode = [] }
        return leftNode
    }

    struct Seen {
        var source: IPAddress
        var destination: IPAddress
        /// What is behind the IP header.
        var transport: [UInt8]
        var isICMP: Bool
    }

    /// What the stack saw.
    func takeSeen() -> [Seen] {
        var seen: [Seen] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        for (place, raw) in rawSockets.enumerated() {
            while let (count, source, destination) = receive(raw.descriptor, &buffer) {
                let header = raw.isIPv4 ? Int(buffer[0] & 0xF) * 4 : 0
                // IPv4's sockets get the header.
                let ends =
                    raw.isIPv4 ? (IPAddress(octets: buffer[12..<16]), IPAddress(octets: buffer[16..<20])) : (source, destination)
                guard count > header, let from = ends.0, let to = ends.1 else { continue }
                seen.append(Seen(source: from, destination: to, transport: Array(buffer[header..<count]), isICMP: place % 3 == 2))
            }
        }
        return seen
    }

    /// One packet, and of IPv6 its addresses: the destination is in a control message.
    private func receive(_ descriptor: Int32, _ buffer: inout [UInt8]) -> (
        count: Int, source: IPAddress?, destination: IPAddress?
    )? {
        var name = [UInt8](repeating: 0, count: MemoryLayout<sockaddr_in6>.size)
        var control = [UInt8](repeating: 0, count: 128)
        let got = buffer.withUnsafeMutableBytes { buffer in
            name.withUnsafeMutableBytes { name in
                control.withUnsafeMutableBytes { control in
                    var vector = iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)
                    return withUnsafeMutablePointer(to: &vector) { vector in
                        var message = msghdr()
                        message.msg_name = name.baseAddress
                        message.msg_namelen = socklen_t(name.count)
                        message.msg_iov = vector
                        message.msg_iovlen = 1
                        message.msg_control = control.baseAddress
                        message.msg_controllen = control.count
                        return recvmsg(descriptor, &message, 0)
                    }
                }
            }
        }
        guard got > 0 else { return nil }
        // struct sockaddr_in6: the address at 8. struct cmsghdr: length 8, level 4, type 4; IPV6_PKTINFO begins with the address.
        return (
            got, IPAddress(octets: name[8..<24]),
            control[8] == 41 && control[12] == 50 ? IPAddress(octets: control[16..<32]) : nil
        )
    }
}

/// An agent that stands still while its thread does.
final class StandStill {
    private let gate = DispatchSemaphore(value: 0)
    private let work: BackgroundWork

    init(_ host: Host) {
        let (began, gate) = (DispatchSemaphore(value: 0), gate)
        work = BackgroundWork {
            try host.ask { _ in
                began.signal()
                gate.wait()
            }
        }
        began.wait()
    }

    func end() throws {
        gate.signal()
        try work.wait()
    }
}

/// Keeps this thread on one processor, so that what it sends through a link of namespaces stays in order.
func stayOnOneProcessor(_ number: Int) {
    typealias SetAffinity = @convention(c) (Int32, Int, UnsafeRawPointer) -> Int32
    guard let symbol = dlsym(nil, "sched_setaffinity") else { return }
    var mask = [UInt8](repeating: 0, count: 128)
    mask[number / 8] = 1 << UInt8(number % 8)
    _ = unsafeBitCast(symbol, to: SetAffinity.self)(0, mask.count, mask)
}

extension TestSocket {
    /// TCP sequence numbers at which both ends of `connected` stand.
    static let receiveSequence: UInt32 = 1000, sendSequence: UInt32 = 5000

    /// A connection as if it had been opened: by TCP_REPAIR, without a packet.
    static func connected(in namespace: Namespace, from local: Endpoint, to remote: Endpoint) throws -> TestSocket {
        let made = try TestSocket(namespace, type: stream, isIPv4: local.address.isIPv4)
        // linux/tcp.h: REPAIR 19, REPAIR_QUEUE 20 (receive 1, send 2), QUEUE_SEQ 21, REPAIR_WINDOW 29.
        try made.set(6, 19, 1)
        try made.bind(local.address, port: local.port)
        for (queue, sequence) in [(Int32(1), receiveSequence), (2, sendSequence)] {
            try made.set(6, 20, queue)
            try made.set(6, 21, Int32(bitPattern: sequence))
        }
        try made.connect(remote.address, port: remote.port)
        // snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup
        try made.set(6, 29, octets: [receiveSequence, 65_535, 65_535, 65_535, receiveSequence].flatMap { nativeOctets($0) })
        // Off, without a window probe; it takes SO_REUSEADDR (2) with it, and others are to have this port too.
        try made.set(6, 19, -1)
        try made.set(SOL_SOCKET, 2, 1)
        // Nor does a segment wait for the last one's acknowledgement: TCP_NODELAY.
        try made.set(6, 1, 1)
        return made
    }

    /// What the owner would notice now.
    enum Notice: Equatable { case nothing, data, failure(Int32) }
    func notice() -> Notice {
        var buffer = [UInt8](repeating: 0, count: 2048)
        let got = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        if got > 0 { return .data }
        return got == 0 || errno == EAGAIN ? .nothing : .failure(errno)
    }

    /// Sources of all datagrams that wait.
    func waitingSources() -> [IPAddress] {
        var sources: [IPAddress] = []
        setTimeout(seconds: 0.000_001)
        while let got = try? receiveFrom() { sources.append(got.source.address) }
        return sources
    }
}
