import Glibc
import IMTPlan
import MATSignal

/// One message from the kernel. Nothing in it is trusted to be as long as it says.
struct NetlinkIncoming {
    let type: UInt16
    let flags: UInt16
    let sequence: UInt32
    /// Of an event: the socket that made the change; 0 for the kernel itself.
    let port: UInt32
    let payload: UnsafeRawBufferPointer

    /// nlmsghdr is length 4, type 2, flags 2, sequence 4, port 4.
    static let headerBytes = 16

    /// Calls `body` for each message of one datagram; stops at the first that overruns it.
    static func forEach(in datagram: UnsafeRawBufferPointer, _ body: (NetlinkIncoming) -> Void) {
        var rest = datagram
        while rest.count >= headerBytes {
            let length = Int(rest.loadUnaligned(as: UInt32.self))
            guard length >= headerBytes, length <= rest.count else { return }
            body(
                NetlinkIncoming(
                    type: rest.loadUnaligned(fromByteOffset: 4, as: UInt16.self),
                    flags: rest.loadUnaligned(fromByteOffset: 6, as: UInt16.self),
                    sequence: rest.loadUnaligned(fromByteOffset: 8, as: UInt32.self),
                    port: rest.loadUnaligned(fromByteOffset: 12, as: UInt32.self),
                    payload: UnsafeRawBufferPointer(rebasing: rest[headerBytes..<length])))
            rest = UnsafeRawBufferPointer(rebasing: rest[min(rest.count, (length + 3) & ~3)...])
        }
    }

    /// The attributes after a fixed header of `bytes`.
    func attributes(after bytes: Int) -> NetlinkAttributes {
        guard payload.count >= bytes else { return NetlinkAttributes(payload: UnsafeRawBufferPointer(start: nil, count: 0)) }
        return NetlinkAttributes(payload: UnsafeRawBufferPointer(rebasing: payload[bytes...]))
    }
}

/// A run of attributes; valid as long as the datagram it points into.
struct NetlinkAttributes: Sequence, IteratorProtocol {
    var payload: UnsafeRawBufferPointer

    struct Attribute {
        let type: UInt16
        let value: UnsafeRawBufferPointer

        var nested: NetlinkAttributes { NetlinkAttributes(payload: value) }
        var u8: UInt8? { value.first }
        var u16: UInt16? { value.count >= 2 ? value.loadUnaligned(as: UInt16.self) : nil }
        var u32: UInt32? { value.count >= 4 ? value.loadUnaligned(as: UInt32.self) : nil }
        var u32BigEndian: UInt32? { u32.map { UInt32(bigEndian: $0) } }
        var u64BigEndian: UInt64? { value.count >= 8 ? UInt64(bigEndian: value.loadUnaligned(as: UInt64.self)) : nil }
        var octets: [UInt8] { Array(value) }
        var address: IPAddress? { IPAddress(octets: value) }
        var string: String { String(decoding: value.prefix { $0 != 0 }, as: UTF8.self) }
    }

    mutating func next() -> Attribute? {
        guard payload.count >= 4 else { return nil }
        let length = Int(payload.loadUnaligned(as: UInt16.self))
        guard length >= 4, length <= payload.count else { return nil }
        let type = payload.loadUnaligned(fromByteOffset: 2, as: UInt16.self) & KernelValues.attributeTypeMask
        let value = UnsafeRawBufferPointer(rebasing: payload[4..<length])
        payload = UnsafeRawBufferPointer(rebasing: payload[Swift.min(payload.count, (length + 3) & ~3)...])
        return Attribute(type: type, value: value)
    }

    func first(_ type: UInt16) -> Attribute? {
        for attribute in self where attribute.type == type { return attribute }
        return nil
    }
}

/// A refusal: which message, why, and the kernel's words for it.
struct NetlinkFailure {
    let sequence: UInt32
    let errno: Int32
    let message: String?

    /// Reads NLMSG_ERROR: errno 4 (negative), the request's header 16 and, unless capped, its payload; then attributes.
    /// - Returns: errno 0 for an acknowledgement.
    static func decode(_ incoming: NetlinkIncoming) -> NetlinkFailure? {
        guard incoming.payload.count >= 4 else { return nil }
        let code = incoming.payload.loadUnaligned(as: Int32.self)
        var message: String?
        if incoming.flags & KernelValues.flagAckTLVs != 0, incoming.payload.count >= 20 {
            let requestBytes = Int(incoming.payload.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
            let capped = incoming.flags & KernelValues.flagCapped != 0
            let skip = 4 + (capped ? NetlinkIncoming.headerBytes : max(NetlinkIncoming.headerBytes, (requestBytes + 3) & ~3))
            message = incoming.attributes(after: skip).first(KernelValues.errorMessage)?.string
        }
        // -Int32.min would trap, and no errno is negative twice over.
        return NetlinkFailure(sequence: incoming.sequence, errno: code == .min ? EIO : abs(code), message: message)
    }
}
