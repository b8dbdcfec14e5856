import CNetfilter
import IMTPlan
import MATSignal

typealias NetlinkMessage = UnsafeMutablePointer<nlmsghdr>

/// Messages for the kernel in one growable buffer, sent with one call.
///
/// libmnl writes without looking at the buffer's end, so every message first reserves the most it may take.
struct NetlinkWriter: ~Copyable {
    /// Enough for any message but a list of elements.
    static let messageBytesMax = 8 * 1024

    private var base: UnsafeMutableRawPointer
    private var capacity: Int
    private(set) var count = 0
    let firstSequence: UInt32
    private(set) var nextSequence: UInt32

    init(firstSequence: UInt32, capacity: Int = 4 * NetlinkWriter.messageBytesMax) {
        self.capacity = max(capacity, Self.messageBytesMax)
        base = .allocate(byteCount: self.capacity, alignment: 16)
        base.initializeMemory(as: UInt8.self, repeating: 0, count: self.capacity)
        self.firstSequence = firstSequence
        nextSequence = firstSequence
    }

    deinit { base.deallocate() }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

    /// Appends one message whose payload `body` writes.
    /// - Returns: its sequence number, by which the kernel answers.
    @discardableResult
    mutating func append(
        type: UInt16, flags: UInt16, bytesMax: Int = NetlinkWriter.messageBytesMax, _ body: (NetlinkMessage) -> Void
    ) -> UInt32 {
        reserve(bytesMax)
        guard let message = mnl_nlmsg_put_header(base + count) else { return nextSequence }
        message.pointee.nlmsg_type = type
        message.pointee.nlmsg_flags = KernelValues.flagRequest | flags
        message.pointee.nlmsg_seq = nextSequence
        body(message)
        count += (Int(message.pointee.nlmsg_len) + 3) & ~3
        nextSequence &+= 1
        return nextSequence &- 1
    }

    private mutating func reserve(_ more: Int) {
        guard count + more > capacity else { return }
        let larger = max(2 * capacity, count + more)
        let fresh = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 16)
        fresh.initializeMemory(as: UInt8.self, repeating: 0, count: larger)
        fresh.copyMemory(from: base, byteCount: count)
        base.deallocate()
        base = fresh
        capacity = larger
    }
}

extension UnsafeMutablePointer where Pointee == nlmsghdr {
    /// Appends a fixed header of `octets` after what is there.
    func putHeader(_ octets: [UInt8]) {
        guard let target = mnl_nlmsg_put_extra_header(self, octets.count) else { return }
        octets.withUnsafeBytes { if let base = $0.baseAddress { target.copyMemory(from: base, byteCount: octets.count) } }
    }

    func put(_ type: UInt16, u8 value: UInt8) { mnl_attr_put_u8(self, type, value) }
    func put(_ type: UInt16, u16 value: UInt16) { mnl_attr_put_u16(self, type, value) }
    func put(_ type: UInt16, u32 value: UInt32) { mnl_attr_put_u32(self, type, value) }
    func put(_ type: UInt16, string: String) { mnl_attr_put_strz(self, type, string) }
    func put(_ type: UInt16, octets: [UInt8]) {
        octets.withUnsafeBytes { mnl_attr_put(self, type, $0.count, $0.baseAddress) }
    }
    func put(_ type: UInt16, address: IPAddress) { put(type, octets: address.packetOctets) }

    func putNested(_ type: UInt16, _ body: () -> Void) {
        let nest = mnl_attr_nest_start(self, type)
        body()
        if let nest { mnl_attr_nest_end(self, nest) }
    }
}
