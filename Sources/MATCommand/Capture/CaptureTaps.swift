import CLinux
import Foundation
import Glibc
import IMTPlan
import MATRuntime
import MATSignal

/// Packets as links carry them: an AF_PACKET socket on all of them.
final class OutsideTap {
    /// linux/if_packet.h, linux/if_arp.h.
    private static let outgoing: UInt8 = 4, loopback: UInt16 = 772, tunnel: UInt16 = 65534
    private static let family: Int32 = 17, allProtocols: UInt16 = 3, ipv4: UInt16 = 0x0800, ipv6: UInt16 = 0x86DD
    /// SIOCGSTAMPNS: when the kernel saw the packet that was read last.
    private static let stamp: UInt = 0x8907

    let descriptor: Int32
    private var names: [Int32: String] = [:]
    private var buffer = [UInt8](repeating: 0, count: 1 << 17)

    init() throws(CommandFailure) {
        // SOCK_DGRAM: without the link's own header.
        descriptor = socket(
            Self.family, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), Int32(Self.allProtocols.bigEndian)
        )
        guard descriptor >= 0 else {
            throw CommandFailure(
                "packets of links can't be captured: \(String(cString: strerror(errno)))\(errno == EPERM ? "; run this as root" : "")")
        }
        var octets: Int32 = 32 << 20
        // SO_RCVBUFFORCE
        setsockopt(descriptor, SOL_SOCKET, 33, &octets, 4)
        // There is no packet yet; asked the first time, the kernel begins to note times.
        var time = timespec()
        _ = mat_ioctl(descriptor, Self.stamp, &time)
    }

    deinit { close(descriptor) }

    func read(_ take: (CaptureSides.Seen) -> Void) {
        // sockaddr_ll: family 2, protocol 2, index 4, hardware type 2, packet type 1, address length 1, address 8.
        var name = [UInt8](repeating: 0, count: 20)
        while true {
            var length = socklen_t(name.count)
            let count = name.withUnsafeMutableBytes { name in
                recvfrom(
                    descriptor, &buffer, buffer.count, Int32(MSG_TRUNC), name.baseAddress?.assumingMemoryBound(to: sockaddr.self), &length)
            }
            guard count > 0 else { return }
            let kind = UInt16(name[2]) << 8 | UInt16(name[3])
            let hardware = name.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 8, as: UInt16.self) }
            guard kind == Self.ipv4 || kind == Self.ipv6, hardware != Self.loopback, hardware != Self.tunnel else { continue }
            let index = name.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 4, as: Int32.self) }
            var time = timespec()
            if mat_ioctl(descriptor, Self.stamp, &time) != 0 { clock_gettime(CLOCK_REALTIME, &time) }
            take(
                CaptureSides.Seen(
                    side: .outside(link: link(index)), direction: name[10] == Self.outgoing ? .outbound : .inbound, nanoseconds: time.nanoseconds,
                    octets: Array(buffer.prefix(count)), length: count))
        }
    }

    private func link(_ index: Int32) -> String {
        if let known = names[index] { return known }
        var text = [CChar](repeating: 0, count: 16)
        let name =
            if_indextoname(UInt32(bitPattern: index), &text) == nil
            ? "link \(index)" : String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        names[index] = name
        return name
    }

    /// What the socket had no room for.
    private(set) var lost: UInt64 = 0

    func countLost() {
        // PACKET_STATISTICS tells what came since it was asked last, and how much of that was lost.
        var counts: [UInt32] = [0, 0]
        var length = socklen_t(8)
        if getsockopt(descriptor, 263, 6, &counts, &length) == 0 { lost += UInt64(counts[1]) }
    }
}

/// Packets as programs see them: copies that a table of nftables makes (NFLOG) before packets are translated, and after.
///
/// The table is `nft`'s, which owns it: it goes when that process does, however this one ends.
final class InsideTap {
    /// Each capture has a table of its own. matd knows it by its beginning.
    private static func table(_ group: UInt16) -> String { "\(TranslationRuleset.captureTables)\(group)" }
    /// Groups that are tried, until one is nobody's.
    private static let groups: ClosedRange<UInt16> = 6299...6306

    let descriptor: Int32
    private let nft = Process()
    private let input = Pipe()
    private var buffer = [UInt8](repeating: 0, count: 1 << 17)
    private let range: UInt16
    private(set) var lost: UInt32 = 0

    /// - Parameter octets: as much of each packet as is wanted; the kernel copies no more.
    init(homes: [IPPrefix], octets: Int) throws(CommandFailure) {
        range = UInt16(clamping: max(octets, 256))
        let type = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        // NETLINK_NETFILTER
        descriptor = socket(16, type, 12)
        guard descriptor >= 0 else { throw CommandFailure("packets of programs can't be captured: \(String(cString: strerror(errno)))") }
        var room: Int32 = 32 << 20
        setsockopt(descriptor, SOL_SOCKET, 33, &room, 4)
        guard let group = Self.groups.first(where: bind) else {
            throw CommandFailure(
                "no NFLOG group from \(Self.groups.lowerBound) to \(Self.groups.upperBound) can be had: \(String(cString: strerror(errno)))\(errno == EPERM ? "; run this as root" : "")"
            )
        }
        try install(homes, group)
    }

    deinit {
        stop()
        close(descriptor)
    }

    /// Takes the table away: `nft` ends with its input.
    func stop() {
        try? input.fileHandleForWriting.close()
        for _ in 0..<100 where nft.isRunning { usleep(20_000) }
        if nft.isRunning { kill(nft.processIdentifier, SIGKILL) }
    }

    // MARK: nft

    private func install(_ homes: [IPPrefix], _ group: UInt16) throws(CommandFailure) {
        let table = Self.table(group)
        guard let program = DoctorSurvey.program("nft") else {
            throw CommandFailure("nft is not installed, which `mat capture` needs: install nftables")
        }
        nft.executableURL = URL(fileURLWithPath: program)
        nft.arguments = ["-i"]
        nft.standardInput = input
        nft.standardOutput = FileHandle.nullDevice
        nft.standardError = FileHandle.nullDevice
        do {
            try nft.run()
            try input.fileHandleForWriting.write(contentsOf: Data((Self.rules(homes, group) + "\n").utf8))
        } catch {
            throw CommandFailure("nft does not start: \(error.localizedDescription)")
        }
        for _ in 0..<100 {
            if Self.isThere(program, table) { return }
            usleep(50_000)
        }
        throw CommandFailure(
            "nft does not make the table \(table), with which `mat capture` sees what programs send: `nft list tables` shows what is there")
    }

    private static func isThere(_ program: String, _ table: String) -> Bool {
        let listing = Process()
        let output = Pipe()
        listing.executableURL = URL(fileURLWithPath: program)
        listing.arguments = ["list", "table", "inet", table]
        listing.standardOutput = output
        listing.standardError = FileHandle.nullDevice
        guard (try? listing.run()) != nil else { return false }
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        listing.waitUntilExit()
        // The last of them.
        return text.contains("chain in {") && text.contains("prefix \"mat in\"")
    }

    /// On one line, so in one transaction. Packets are seen before they are translated when they leave, and before the host's firewall; when they
    /// come, after both.
    static func rules(_ homes: [IPPrefix], _ group: UInt16) -> String {
        let table = table(group)
        var lines = [
            "add table inet \(table) { flags owner; }", "add chain inet \(table) out { type filter hook output priority -200; }",
            "add chain inet \(table) through { type filter hook forward priority -200; }",
            "add chain inet \(table) in { type filter hook input priority 300; }",
        ]
        for home in homes {
            let family = home.address.isIPv4 ? "ip" : "ip6"
            for (chain, way, prefix) in [
                ("out", "saddr", "mat out"), ("through", "saddr", "mat out"), ("through", "daddr", "mat in"), ("in", "daddr", "mat in"),
            ] {
                lines.append("add rule inet \(table) \(chain) \(family) \(way) \(home) log prefix \"\(prefix)\" group \(group)")
            }
        }
        return lines.joined(separator: "; ")
    }

    // MARK: NFLOG

    private func bind(_ group: UInt16) -> Bool {
        // nlmsghdr 16, nfgenmsg (family, version, resource in network order) 4, then one attribute: see linux/netfilter/nfnetlink_log.h.
        func configure(_ attribute: UInt16, _ value: [UInt8]) -> Bool {
            let padded = value + [UInt8](repeating: 0, count: (4 - value.count % 4) % 4)
            var octets: [UInt8] = []
            func add(_ value: some FixedWidthInteger) { withUnsafeBytes(of: value) { octets += Array($0) } }
            add(UInt32(16 + 4 + 4 + padded.count))
            // NFNL_SUBSYS_ULOG, NFULNL_MSG_CONFIG; NLM_F_REQUEST, NLM_F_ACK.
            add(UInt16(4 << 8 | 1))
            add(UInt16(5))
            add(UInt32(1))
            add(UInt32(0))
            octets += [0, 0, UInt8(group >> 8), UInt8(group & 0xFF)]
            add(UInt16(4 + value.count))
            add(attribute)
            octets += padded
            guard send(descriptor, octets, octets.count, 0) == octets.count else { return false }
            let count = recv(descriptor, &buffer, buffer.count, 0)
            guard count >= 20 else { return false }
            let failure = buffer.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 16, as: Int32.self) }
            errno = -failure
            return failure == 0
        }
        // NFULA_CFG_CMD bind; NFULA_CFG_MODE copy so much of a packet; NFULA_CFG_QTHRESH each at once; NFULA_CFG_FLAGS none.
        return configure(1, [1]) && configure(2, [0, 0, UInt8(range >> 8), UInt8(range & 0xFF), 2, 0]) && configure(5, [0, 0, 0, 1])
    }

    func read(_ take: (CaptureSides.Seen) -> Void) {
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            guard count > 0 else {
                guard count < 0, errno == ENOBUFS else { return }
                lost += 1
                continue
            }
            var now = timespec()
            clock_gettime(CLOCK_REALTIME, &now)
            var start = 0
            while start + 20 <= count {
                let length = buffer.withUnsafeBytes { Int($0.loadUnaligned(fromByteOffset: start, as: UInt32.self)) }
                let type = buffer.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: start + 4, as: UInt16.self) }
                guard length >= 20, start + length <= count else { break }
                if type == 4 << 8, let seen = message(start + 20, start + length, now.nanoseconds) { take(seen) }
                start += (length + 3) & ~3
            }
        }
    }

    /// Of the packet that this is the beginning of, as its header says; those that are too large for that (BIG TCP) say 0.
    private static func length(of octets: [UInt8]) -> Int {
        func word(_ index: Int) -> Int { Int(octets[index]) << 8 | Int(octets[index + 1]) }
        guard octets.count >= 20 else { return octets.count }
        let said = octets[0] >> 4 == 4 ? word(2) : word(4) == 0 ? 0 : 40 + word(4)
        return max(said, octets.count)
    }

    /// NFULA_TIMESTAMP 3, NFULA_PAYLOAD 9, NFULA_PREFIX 10.
    private func message(_ start: Int, _ end: Int, _ now: UInt64) -> CaptureSides.Seen? {
        var (place, time) = (start, now)
        var payload: [UInt8]?
        var prefix = ""
        while place + 4 <= end {
            let (length, type) = buffer.withUnsafeBytes {
                (Int($0.loadUnaligned(fromByteOffset: place, as: UInt16.self)), $0.loadUnaligned(fromByteOffset: place + 2, as: UInt16.self) & 0x7FFF)
            }
            guard length >= 4, place + length <= end else { return nil }
            let value = buffer[(place + 4)..<(place + length)]
            switch type {
            case 3 where value.count == 16:
                func number(_ from: Int) -> UInt64 { value.dropFirst(from).prefix(8).reduce(0) { $0 << 8 | UInt64($1) } }
                let (seconds, micro) = (number(0), number(8))
                time = seconds.multipliedReportingOverflow(by: 1_000_000_000).partialValue &+ micro &* 1000
            case 9: payload = Array(value)
            case 10: prefix = String(decoding: value.prefix { $0 != 0 }, as: UTF8.self)
            default: break
            }
            place += (length + 3) & ~3
        }
        guard let payload, prefix == "mat out" || prefix == "mat in" else { return nil }
        return CaptureSides.Seen(
            side: .inside, direction: prefix == "mat out" ? .outbound : .inbound, nanoseconds: time, octets: payload, length: Self.length(of: payload)
        )
    }
}

extension timespec {
    /// Since the clock's zero.
    var nanoseconds: UInt64 { UInt64(clamping: tv_sec) &* 1_000_000_000 &+ UInt64(clamping: tv_nsec) }
}
