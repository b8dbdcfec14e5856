/// The data plane's common case as a traffic-control classifier: TCP and UDP without fragments, IPv4 options or extension headers.
/// Everything else, signalling included, goes on as it is, for nftables to look at.
///
///     egress    out [own HoA . peer HoA] : path . peer MoA;  paths [path] : own MoA
///     ingress   own [own MoA] : own HoA;                     in [peer MoA . own HoA] : peer HoA
///
/// One difference of old and new addresses serves all checksums. The IPv4 header's is mended right here; TCP's and UDP's by the
/// kernel's helper, which alone knows what state the packet's checksum is in (to be completed by the device, already summed up by
/// it, or final). The order matters too: the helper may move the packet, after which the verifier forbids what was known of it.
struct TranslationProgram {
    enum Direction { case egress, ingress }
    /// Descriptors of the maps.
    struct Maps {
        var out: Int32
        var paths: Int32
        var own: Int32
        var into: Int32
    }

    var direction: Direction
    var isIPv4: Bool
    var maps: Maps
    /// Octets before the IP header: 14 on Ethernet, 0 on links without a header.
    var linkHeaderOctets = 14

    private typealias Register = BPFAssembler.Register

    /// Offsets in struct __sk_buff.
    private static let contextProtocol = 16, contextData = 76, contextDataEnd = 80
    /// TC_ACT_UNSPEC and TC_ACT_SHOT: on to the next filter, and drop.
    private static let next: Int32 = -1, drop: Int32 = 2
    private static let pseudoHeader: Int32 = 1 << 4, keepsNoChecksum: Int32 = 1 << 5
    private static let udp: Int32 = 17, tcp: Int32 = 6

    private var words: Int { isIPv4 ? 1 : 4 }
    private var headerOctets: Int { isIPv4 ? 20 : 40 }
    private var protocolOffset: Int { linkHeaderOctets + (isIPv4 ? 9 : 6) }
    private var source: Int { linkHeaderOctets + (isIPv4 ? 12 : 8) }
    private var destination: Int { source + 4 * words }
    private var transport: Int { linkHeaderOctets + headerOctets }

    /// Octets of a packet as a number loaded from there.
    private func inPacket(_ octets: [UInt8]) -> Int32 {
        var value: UInt32 = 0
        for octet in octets { value = value << 8 | UInt32(octet) }
        return Int32(bitPattern: octets.count == 2 ? UInt32(UInt16(truncatingIfNeeded: value).bigEndian) : value.bigEndian)
    }

    // What lies on the stack, below `r10`: a key of two addresses at most, and a path's number.
    private static let key = -32, path = -40

    func assembled() throws -> [BPFAssembler.Instruction] {
        var code = BPFAssembler()
        let pass = code.label()
        code.alu(.move, .r6, .r1)
        checkHeaders(&code, else: pass)
        // From here on r6 is the context and r8 the packet; then r0 and r7 point to what source and destination become.
        let (first, second) = direction == .egress ? leave(&code, else: pass) : arrive(&code, else: pass)
        rewrite(&code, source: first, destination: second)
        mendTransport(&code)
        code.place(pass)
        code.alu(.move, .r0, Self.next)
        code.exit()
        return try code.assembled()
    }

    private func checkHeaders(_ code: inout BPFAssembler, else pass: BPFAssembler.Label) {
        let isPort = code.label()
        code.load(.r2, .r6, Self.contextProtocol)
        code.jump(if: .notEqual, .r2, inPacket(isIPv4 ? [0x08, 0x00] : [0x86, 0xDD]), to: pass)
        code.load(.r8, .r6, Self.contextData)
        code.load(.r3, .r6, Self.contextDataEnd)
        code.alu(.move, .r2, .r8)
        // As far as UDP's checksum; TCP's is further on, where only the helper goes.
        code.alu(.add, .r2, Int32(transport + 8))
        code.jump(if: .greater, .r2, .r3, to: pass)
        if isIPv4 {
            code.load(.r2, .r8, linkHeaderOctets, .octet)
            code.jump(if: .notEqual, .r2, 0x45, to: pass)
            code.load(.r2, .r8, linkHeaderOctets + 6, .half)
            code.alu(.and, .r2, inPacket([0x3F, 0xFF]))
            code.jump(if: .notEqual, .r2, 0, to: pass)
        }
        code.load(.r2, .r8, protocolOffset, .octet)
        code.jump(if: .equal, .r2, Self.tcp, to: isPort)
        code.jump(if: .notEqual, .r2, Self.udp, to: pass)
        // Signalling: both ports 6288 or 6289.
        code.load(.r2, .r8, transport)
        code.alu32(.and, .r2, inPacket([0xFF, 0xFE, 0xFF, 0xFE]))
        code.jump32(if: .equal, .r2, inPacket([0x18, 0x90, 0x18, 0x90]), to: pass)
        code.place(isPort)
    }

    /// Where the two new addresses are: a register that points to a map's value, and the offset in it.
    private typealias Address = (register: Register, offset: Int)

    private func leave(_ code: inout BPFAssembler, else pass: BPFAssembler.Label) -> (Address, Address) {
        for word in 0..<2 * words {
            code.load(.r2, .r8, source + 4 * word)
            code.store(.r10, Self.key + 4 * word, .r2)
        }
        lookUp(&code, maps.out, Self.key, else: pass)
        code.alu(.move, .r7, .r0)
        code.load(.r2, .r7, 0)
        code.store(.r10, Self.path, .r2)
        lookUp(&code, maps.paths, Self.path, else: pass)
        return ((.r0, 0), (.r7, 4))
    }

    private func arrive(_ code: inout BPFAssembler, else pass: BPFAssembler.Label) -> (Address, Address) {
        for word in 0..<words {
            code.load(.r2, .r8, destination + 4 * word)
            code.store(.r10, Self.key + 4 * word, .r2)
        }
        lookUp(&code, maps.own, Self.key, else: pass)
        code.alu(.move, .r7, .r0)
        for word in 0..<words {
            code.load(.r2, .r8, source + 4 * word)
            code.store(.r10, Self.key + 4 * word, .r2)
            code.load(.r2, .r7, 4 * word)
            code.store(.r10, Self.key + 4 * (words + word), .r2)
        }
        lookUp(&code, maps.into, Self.key, else: pass)
        return ((.r0, 0), (.r7, 0))
    }

    private func lookUp(_ code: inout BPFAssembler, _ map: Int32, _ key: Int, else pass: BPFAssembler.Label) {
        code.loadMap(.r1, map)
        code.alu(.move, .r2, .r10)
        code.alu(.add, .r2, Int32(key))
        code.call(.mapLookup)
        code.jump(if: .equal, .r0, 0, to: pass)
    }

    /// Writes both addresses and the IPv4 header's checksum, and leaves the one's-complement difference in `r9`.
    private func rewrite(_ code: inout BPFAssembler, source first: Address, destination second: Address) {
        code.alu(.move, .r9, 0)
        for (address, place) in [(first, source), (second, destination)] {
            for word in 0..<words {
                code.load(.r2, .r8, place + 4 * word)
                code.alu32(.xor, .r2, -1)
                code.alu(.add, .r9, .r2)
                code.load(.r2, address.register, address.offset + 4 * word)
                code.alu(.add, .r9, .r2)
                code.store(.r8, place + 4 * word, .r2)
            }
        }
        // Sixteen words at most: carries are in the upper half, and adding them once may carry once more.
        for _ in 0..<2 {
            code.alu(.move, .r2, .r9)
            code.alu(.shiftRight, .r2, 32)
            code.alu32(.move, .r9, .r9)
            code.alu(.add, .r9, .r2)
        }
        guard isIPv4 else { return }
        // RFC 1624: HC' = ~(~HC + difference).
        code.load(.r2, .r8, linkHeaderOctets + 10, .half)
        code.alu32(.xor, .r2, 0xFFFF)
        code.alu(.add, .r2, .r9)
        for _ in 0..<3 {
            code.alu(.move, .r3, .r2)
            code.alu(.shiftRight, .r3, 16)
            code.alu(.and, .r2, 0xFFFF)
            code.alu(.add, .r2, .r3)
        }
        code.alu32(.xor, .r2, 0xFFFF)
        code.store(.r8, linkHeaderOctets + 10, .r2, .half)
    }

    private func mendTransport(_ code: inout BPFAssembler) {
        let isTCP = code.label()
        let call = code.label()
        let done = code.label()
        code.load(.r3, .r8, protocolOffset, .octet)
        code.jump(if: .equal, .r3, Self.tcp, to: isTCP)
        code.alu(.move, .r2, Int32(transport + 6))
        // A UDP checksum of 0, "none", stays 0; one that becomes 0 is written as all ones.
        code.alu(.move, .r5, Self.pseudoHeader | Self.keepsNoChecksum)
        code.jump(to: call)
        code.place(isTCP)
        code.alu(.move, .r2, Int32(transport + 16))
        code.alu(.move, .r5, Self.pseudoHeader)
        code.place(call)
        code.alu(.move, .r1, .r6)
        code.alu(.move, .r3, 0)
        code.alu(.move, .r4, .r9)
        code.call(.l4ChecksumReplace)
        code.jump(if: .equal, .r0, 0, to: done)
        // The addresses are new and the checksum is not.
        code.alu(.move, .r0, Self.drop)
        code.exit()
        code.place(done)
        guard !isIPv4, direction == .ingress else { return }
        // A sum that the device took over the whole packet: in IPv6 the new addresses and the mended checksum cancel out in it,
        // but the helper has counted the latter only. Newer kernels have a flag for that (BPF_F_IPV6); this works on all.
        code.alu(.move, .r1, .r6)
        code.alu(.move, .r2, .r9)
        code.call(.checksumUpdate)
    }
}
