import Glibc

/// Writes an event for each global address and each default route that the kernel brings into use: the moment from which a new
/// network can carry traffic, to the microsecond, whoever configured it.
public enum AddressWatch {
    // linux/netlink.h, linux/rtnetlink.h and linux/if_addr.h, which Swift's Glibc module doesn't show.
    private static let familyNetlink: Int32 = 16
    private static let protocolRoute: Int32 = 0
    private static let groups: UInt32 = 0x10 | 0x40 | 0x100 | 0x400  // RTMGRP_IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
    private static let newAddress: UInt16 = 20
    private static let newRoute: UInt16 = 24
    private static let flagTentative: UInt32 = 0x40
    private static let tableMain: UInt8 = 254
    private static let attributeAddress: UInt16 = 1
    private static let attributeFlags: UInt16 = 8
    private static let attributeOutInterface: UInt16 = 4

    /// Runs until interrupted.
    public static func run(path: String) throws {
        try run(until: { Interruption.isRequested }, { try $0.append(to: path) })
    }

    /// Runs until it is over, in the calling thread's network namespace.
    package static func run(until isOver: () -> Bool, _ take: (ProbeEvent) throws -> Void) throws {
        let descriptor = socket(familyNetlink, Int32(SOCK_RAW.rawValue), protocolRoute)
        guard descriptor >= 0 else { throw ProbeError.system("opening a netlink socket") }
        defer { close(descriptor) }
        // struct sockaddr_nl: family, padding, port (0: the kernel chooses), groups.
        var address = (UInt16(familyNetlink), UInt16(0), UInt32(0), groups)
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, 12) }
        }
        guard status == 0 else { throw ProbeError.system("subscribing to addresses and routes") }
        PreciseThread.preferCurrent()
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while !isOver() {
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&entry, 1, 100) > 0 else { continue }
            let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
            let now = ProbeClock.now()
            guard count > 0 else { continue }
            for event in events(Array(buffer[..<count]), at: now) { try take(event) }
        }
    }

    /// The events in one datagram of netlink messages.
    static func events(_ bytes: [UInt8], at time: Nanoseconds) -> [ProbeEvent] {
        var result: [ProbeEvent] = []
        var rest = bytes[...]
        while rest.count >= 16 {
            let length = Int(word(rest, 0))
            guard length >= 16, length <= rest.count else { break }
            let type = half(rest, 4)
            let body = rest.dropFirst(16).prefix(length - 16)
            if type == newAddress, let event = address(body, time) { result.append(event) }
            if type == newRoute, let event = route(body, time) { result.append(event) }
            rest = rest.dropFirst((length + 3) & ~3)
        }
        return result
    }

    /// struct ifaddrmsg: family, prefix length, flags, scope (each 1), interface index (4); then attributes.
    private static func address(_ body: ArraySlice<UInt8>, _ time: Nanoseconds) -> ProbeEvent? {
        guard body.count >= 8, let family = family(byte(body, 0)), byte(body, 3) == 0 else { return nil }
        let attributes = attributes(body.dropFirst(8))
        let flags = attributes[attributeFlags].map { $0.count >= 4 ? word($0, 0) : 0 } ?? UInt32(byte(body, 2))
        guard flags & flagTentative == 0, let octets = attributes[attributeAddress], let text = text(octets, family) else { return nil }
        let interface = interface(word(body, 4))
        return ProbeEvent(time: time, event: "address", text: "\(text) on \(interface) is usable", family: family, interface: interface)
    }

    /// struct rtmsg: family, destination length, source length, TOS, table, protocol, scope, type (each 1), flags (4).
    private static func route(_ body: ArraySlice<UInt8>, _ time: Nanoseconds) -> ProbeEvent? {
        guard body.count >= 12, let family = family(byte(body, 0)), byte(body, 1) == 0, byte(body, 4) == tableMain,
            let index = attributes(body.dropFirst(12))[attributeOutInterface], index.count >= 4
        else { return nil }
        let interface = interface(word(index, 0))
        return ProbeEvent(
            time: time, event: "route", text: "\(family.title) default route through \(interface)", family: family, interface: interface)
    }

    /// Each: length (2), type (2), content, padding to 4.
    private static func attributes(_ bytes: ArraySlice<UInt8>) -> [UInt16: ArraySlice<UInt8>] {
        var result: [UInt16: ArraySlice<UInt8>] = [:]
        var rest = bytes
        while rest.count >= 4 {
            let length = Int(half(rest, 0))
            guard length >= 4, length <= rest.count else { break }
            result[half(rest, 2)] = rest.dropFirst(4).prefix(length - 4)
            rest = rest.dropFirst((length + 3) & ~3)
        }
        return result
    }

    private static func family(_ number: UInt8) -> AddressFamily? {
        Int32(number) == AF_INET ? .ipv4 : Int32(number) == AF_INET6 ? .ipv6 : nil
    }

    private static func text(_ octets: ArraySlice<UInt8>, _ family: AddressFamily) -> String? {
        guard octets.count == (family == .ipv4 ? 4 : 16) else { return nil }
        var text = [UInt8](repeating: 0, count: 64)
        let isWritten = text.withUnsafeMutableBytes { text in
            octets.withUnsafeBytes { octets in
                inet_ntop(family.number, octets.baseAddress, text.baseAddress?.assumingMemoryBound(to: CChar.self), 64) != nil
            }
        }
        return isWritten ? String(decoding: text.prefix { $0 != 0 }, as: UTF8.self) : nil
    }

    private static func interface(_ index: UInt32) -> String {
        var name = [CChar](repeating: 0, count: 64)
        guard if_indextoname(index, &name) != nil else { return "interface \(index)" }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    // Numbers are in host order; the callers have checked the length.
    private static func byte(_ bytes: ArraySlice<UInt8>, _ offset: Int) -> UInt8 { bytes[bytes.startIndex + offset] }
    private static func half(_ bytes: ArraySlice<UInt8>, _ offset: Int) -> UInt16 {
        bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: UInt16.self) }
    }
    private static func word(_ bytes: ArraySlice<UInt8>, _ offset: Int) -> UInt32 {
        bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self) }
    }
}
