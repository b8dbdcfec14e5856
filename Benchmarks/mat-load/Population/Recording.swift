import BenchSupport
import Foundation
import IMS
import MATSignal

/// HoAs that somebody asked for, or that a server holds, in the order in which they stand in a file:
///
/// - text with one HoA on a line; what follows `#` is a remark;
/// - an export of `mat ims export`: each mapping's HoA once;
/// - a capture of `tcpdump -w FILE udp dst port 6288`: the HoAs of its MA Queries, as often as they were asked for.
struct Recording: Sendable {
    let hoas: [IPAddress]

    /// HoAs taken from a file; the rest is left out.
    static let countMax = 1 << 24
    private static let octetsMax = 1 << 32

    init(file: String) throws {
        let data: Data
        do {
            data = try Data(contentsOf: URL(fileURLWithPath: file), options: .mappedIfSafe)
        } catch {
            throw BenchError("\(file) can't be read: \(error.localizedDescription)")
        }
        guard data.count <= Self.octetsMax else { throw BenchError("\(file) has more than 4 GiB") }
        if let capture = CaptureFile(data) {
            hoas = try Self.queries(of: capture, file)
        } else {
            hoas = try Self.lines(data, file)
        }
        guard !hoas.isEmpty else { throw BenchError("\(file) has no HoA") }
    }

    private static func queries(of capture: CaptureFile, _ file: String) throws -> [IPAddress] {
        guard capture.isKnownLink else {
            throw BenchError("\(file) is a capture of a kind of link that mat-load does not know (\(capture.linkType))")
        }
        var result: [IPAddress] = []
        capture.forEachDatagram { datagram in
            guard result.count < countMax else { return }
            for case .message(let message, _) in SignalDatagram.decode(datagram) {
                if case .maQuery(let query) = message.body { result.append(query.hoa.address) }
            }
        }
        return result
    }

    private static func lines(_ data: Data, _ file: String) throws -> [IPAddress] {
        var result: [IPAddress] = []
        for (number, line) in data.split(separator: UInt8(ascii: "\n")).enumerated() where result.count < countMax {
            if line.first == UInt8(ascii: "{") {
                do {
                    if case .mapping(let mapping) = try TransferLine(parsing: line) { result.append(mapping.record.hoa.address) }
                } catch {
                    throw BenchError("\(file), line \(number + 1): \(error)")
                }
                continue
            }
            let text = String(decoding: line.prefix { $0 != UInt8(ascii: "#") }, as: UTF8.self).trimmingCharacters(in: .whitespaces)
            if text.isEmpty { continue }
            guard let address = IPAddress(text) else { throw BenchError("\(file), line \(number + 1): \(text) is no IP address") }
            result.append(address)
        }
        return result
    }
}

/// Reads the file format of libpcap (pcap-savefile(5)), as far as UDP in IPv4 and IPv6 goes.
struct CaptureFile {
    private let data: Data
    private let isSwapped: Bool
    let linkType: UInt32

    /// - Returns: `nil` if it is no such file.
    init?(_ data: Data) {
        guard data.count >= 24 else { return nil }
        let magic = data.withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) }
        switch magic {
        // Microseconds, nanoseconds.
        case 0xA1B2_C3D4, 0xA1B2_3C4D: isSwapped = false
        case 0xD4C3_B2A1, 0x4D3C_B2A1: isSwapped = true
        default: return nil
        }
        self.data = data
        let type = data.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 20, as: UInt32.self) }
        // The upper bits are of other matters.
        linkType = (isSwapped ? type.byteSwapped : type) & 0xFFFF
    }

    /// Where the IP header begins, by kind of link, and where the type before it stands: Ethernet, raw IP, the two of `tcpdump -i any`.
    private var head: (octets: Int, type: Int?)? {
        switch linkType {
        case 1: (14, 12)
        case 101: (0, nil)
        case 113: (16, 14)
        case 276: (20, 0)
        default: nil
        }
    }

    var isKnownLink: Bool { head != nil }

    /// Calls `body` with what each UDP datagram to the servers' port carries.
    func forEachDatagram(_ body: ([UInt8]) -> Void) {
        guard let head else { return }
        data.withUnsafeBytes { octets in
            var place = 24
            while place + 16 <= octets.count {
                let word = octets.loadUnaligned(fromByteOffset: place + 8, as: UInt32.self)
                let count = Int(isSwapped ? word.byteSwapped : word)
                place += 16
                guard count <= octets.count - place else { return }
                let packet = UnsafeRawBufferPointer(rebasing: octets[place..<place + count])
                if let datagram = Self.payload(packet, head.octets, head.type) { body(datagram) }
                place += count
            }
        }
    }

    private static func payload(_ packet: UnsafeRawBufferPointer, _ head: Int, _ type: Int?) -> [UInt8]? {
        func half(_ place: Int) -> Int { place + 2 <= packet.count ? Int(packet[place]) << 8 | Int(packet[place + 1]) : -1 }
        var start = head
        // A VLAN tag.
        if let type, half(type) == 0x8100 { start += 4 }
        guard start < packet.count else { return nil }
        let udp: Int
        switch packet[start] >> 4 {
        case 4:
            let words = Int(packet[start] & 0x0F)
            guard words >= 5, start + 20 <= packet.count, packet[start + 9] == 17, half(start + 6) & 0x1FFF == 0 else { return nil }
            udp = start + words * 4
        case 6:
            guard start + 40 <= packet.count, packet[start + 6] == 17 else { return nil }
            udp = start + 40
        default: return nil
        }
        let count = half(udp + 4)
        guard half(udp + 2) == Int(SignalPort.ims), count >= 8, udp + count <= packet.count else { return nil }
        return Array(packet[udp + 8..<udp + count])
    }
}
