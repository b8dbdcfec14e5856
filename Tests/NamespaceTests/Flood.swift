import Foundation
import Glibc

/// Packets with addresses that nobody has, sent as they are.
struct MadeUpPackets {
    private let sockets: [Bool: HostSocket]

    init(_ lab: Lab, from host: String) throws {
        sockets = try [
            true: HostSocket(lab, host, SOCK_RAW, isIPv4: true, protocolNumber: 255),
            false: HostSocket(lab, host, SOCK_RAW, isIPv4: false, protocolNumber: 255),
        ]
    }

    /// - Parameter transport: less its checksum, which is put in at `place`.
    static func packet(from source: [UInt8], to target: [UInt8], protocolNumber: UInt8, _ transport: [UInt8], checksumAt place: Int) -> [UInt8] {
        var transport = transport
        var sum = UInt32(protocolNumber) + UInt32(transport.count)
        for part in [source, target, transport] {
            for index in stride(from: 0, to: part.count, by: 2) { sum += UInt32(part[index]) << 8 | UInt32(part[index + 1]) }
        }
        while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
        transport[place] = UInt8(~sum >> 8 & 0xFF)
        transport[place + 1] = UInt8(~sum & 0xFF)
        // The kernel fills in IPv4's own checksum.
        let header: [UInt8] =
            source.count == 4
            ? [0x45, 0, 0, UInt8(20 + transport.count), 0, 1, 0, 0, 64, protocolNumber, 0, 0] + source + target
            : [0x60, 0, 0, 0, 0, UInt8(transport.count), protocolNumber, 64] + source + target
        return header + transport
    }

    /// - Returns: how many of them went.
    func send(_ packets: some Collection<[UInt8]>, to target: String) -> Int {
        guard let socket = sockets[!target.contains(":")] else { return 0 }
        return HostSocket.withAddress(target, 0) { address, length in
            packets.count { sendto(socket.descriptor, $0, $0.count, 0, address, length) > 0 }
        }
    }
}

/// Packets of made-up sources, as fast as one thread sends them: SYNs, segments and datagrams to open and closed ports, both families.
final class Flood: @unchecked Sendable {
    private static let sourcesCount = 50_000
    private var packets: [Bool: [[UInt8]]] = [true: [], false: []]
    private let way: MadeUpPackets
    private let targets = [true: "198.51.100.20", false: "2001:db8:20::20"]
    private let done = DispatchSemaphore(value: 0)
    private(set) var sent = 0

    private enum Kind: CaseIterable {
        case syn, segment, datagram
    }

    /// - Parameter openPort: where something listens on TCP and UDP.
    init(_ lab: Lab, from host: String, openPort: UInt16) throws {
        way = try MadeUpPackets(lab, from: host)
        for isIPv4 in [true, false] {
            for number in 0..<Self.sourcesCount {
                let kind = Kind.allCases[number % 3]
                let port: UInt16 = number / 3 % 2 == 0 ? openPort : 4444
                packets[isIPv4]?.append(Self.packet(kind, isIPv4: isIPv4, number: number, port: port))
            }
        }
    }

    private static func packet(_ kind: Kind, isIPv4: Bool, number: Int, port: UInt16) -> [UInt8] {
        let (high, middle, low) = (UInt8(number >> 16 & 0xFF), UInt8(number >> 8 & 0xFF), UInt8(number & 0xFF))
        let source: [UInt8] =
            isIPv4 ? [10, 64 | high, middle, low] : [0x20, 0x01, 0x0D, 0xB8, 0xFF, 0xFF] + [UInt8](repeating: 0, count: 7) + [high, middle, low]
        let target: [UInt8] = isIPv4 ? [198, 51, 100, 20] : [0x20, 0x01, 0x0D, 0xB8, 0, 0x20] + [UInt8](repeating: 0, count: 9) + [0x20]
        let ports: [UInt8] = [UInt8(1 + number % 200), low, UInt8(port >> 8), UInt8(port & 0xFF)]
        let transport: [UInt8]
        switch kind {
        case .datagram: transport = ports + [0, 12, 0, 0, 1, 2, 3, 4]
        case .syn: transport = ports + [0, 0, middle, low, 0, 0, 0, 0, 0x50, 0x02, 0xFF, 0xFF, 0, 0, 0, 0]
        case .segment: transport = ports + [0, 0, middle, low, 0, 0, 1, low, 0x50, 0x10, 0xFF, 0xFF, 0, 0, 0, 0]
        }
        let isDatagram = kind == .datagram
        return MadeUpPackets.packet(from: source, to: target, protocolNumber: isDatagram ? 17 : 6, transport, checksumAt: isDatagram ? 6 : 16)
    }

    func start(seconds: Double) {
        let thread = Thread { [self] in
            let end = Date().addingTimeInterval(seconds)
            var index = 0
            while Date() < end {
                for isIPv4 in [true, false] {
                    guard let list = packets[isIPv4], let target = targets[isIPv4] else { continue }
                    sent += way.send(list[index % list.count..<index % list.count + 200], to: target)
                }
                index += 200
            }
            done.signal()
        }
        thread.start()
    }

    func wait() { done.wait() }
}
