import MATSignal

// What several chains ask of a packet: where its fields lie, in which registers they are put, and the questions made of both.
extension TranslationRuleset {
    // MARK: Header fields

    /// Source and destination are adjacent in both families' headers, so a pair is one load and one write.
    var pair: HeaderField { HeaderField(base: .network, offset: family == .ipv4 ? 12 : 8, length: 2 * width) }

    var source: HeaderField { HeaderField(base: .network, offset: family == .ipv4 ? 12 : 8, length: width) }
    var destination: HeaderField { HeaderField(base: .network, offset: family == .ipv4 ? 16 : 24, length: width) }

    func transport(_ offset: UInt32, _ length: UInt32) -> HeaderField {
        HeaderField(base: .transport, offset: offset, length: length)
    }

    var outerChecksum: ChecksumRepair { family == .ipv4 ? .internet(offset: 10, pseudoHeader: true) : .pseudoHeader }

    /// For packets that come in. A card or tunnel may have summed them up already (CHECKSUM_COMPLETE), and the kernel changes that
    /// sum as if the header summed up to the same as before. IPv4's does, by its own checksum; in IPv6 the flow label's last
    /// 16 bits, which have no use any more, are made to absorb the change. Otherwise the stack drops the packet as damaged.
    var arrivingChecksum: ChecksumRepair { .internet(offset: family == .ipv4 ? 10 : 2, pseudoHeader: true) }

    // MARK: Registers: an address takes one (IPv4) or four (IPv6)

    var words: UInt32 { width / 4 }
    var r0: Register { Register(0) }
    var r1: Register { Register(words) }

    /// Room for a second pair beside the first.
    var second: Register { Register(2 * words) }

    // MARK: Questions

    static let udp: [UInt8] = [17], tcp: [UInt8] = [6]
    var icmp: [UInt8] { family == .ipv4 ? [1] : [58] }
    var echoRequest: [UInt8] { family == .ipv4 ? [8] : [128] }
    var echoReply: [UInt8] { family == .ipv4 ? [0] : [129] }

    func isProtocol(_ number: [UInt8]) -> [Expression] { [loadProtocol(into: r0), .compare(r0, .equal, number)] }

    /// IPv4: the header's own octet, which is loaded without a call. IPv6: behind extension headers too.
    func loadProtocol(into register: Register) -> Expression {
        family == .ipv4 ? .load(HeaderField(base: .network, offset: 9, length: 1), into: register) : .meta(.protocolNumber, into: register)
    }

    func isType(_ type: [UInt8], _ comparison: Comparison = .equal) -> [Expression] {
        [.load(transport(0, 1), into: r0), .compare(r0, comparison, type)]
    }

    /// IPv4: anything but echo; only errors and redirects quote, and what else there is finds no entry. ICMPv6: types under 128.
    var isError: [Expression] {
        isProtocol(icmp) + (family == .ipv4 ? isType([0], .notEqual) + isType([8], .notEqual) : isType([128], .less))
    }

    func isInterface(
        _ key: MetaKey, _ name: String, _ comparison: Comparison = .equal, in register: Register = Register(0)
    ) -> [Expression] {
        let octets = Array(name.utf8.prefix(15))
        return [
            .meta(key, into: register), .compare(register, comparison, octets + [UInt8](repeating: 0, count: 16 - octets.count)),
        ]
    }

    /// UDP with both ports in {6288, 6289}. The first octet settles it for nearly all packets, and loads and compares of so few
    /// octets are the cheapest steps there are.
    var isSignalling: [Expression] {
        [
            .load(transport(0, 1), into: r0), .compare(r0, .equal, [0x18]),
            .load(transport(0, 4), into: r0), .mask(r0, [0xFF, 0xFE, 0xFF, 0xFE]),
            .compare(r0, .equal, [0x18, 0x90, 0x18, 0x90]),
        ] + isProtocol(Self.udp)
    }

    /// UDP from or to port 6289, which is the agent's on every address, whatever the other end's port is.
    func isNodePort(_ field: HeaderField) -> [Expression] {
        [
            .load(field, into: r0), .compare(r0, .equal, [UInt8(SignalPort.node >> 8), UInt8(truncatingIfNeeded: SignalPort.node)]),
        ] + isProtocol(Self.udp)
    }

    /// Whether a port may be 6288 or 6289, of whatever protocol: its first octet.
    func mayBeOurPort(_ offset: UInt32) -> [Expression] { [.load(transport(offset, 1), into: r0), .compare(r0, .equal, [0x18])] }

    /// The last four octets of an address field: an aligned load of so few is made without a call.
    func end(of field: HeaderField) -> HeaderField { HeaderField(base: field.base, offset: field.offset + width - 4, length: 4) }

    /// Whether an address field has this address. IPv6: the end alone settles it for nearly all that have another.
    func isAddress(_ address: IPAddress, _ field: HeaderField) -> [Expression] {
        let isEnd: [Expression] =
            family == .ipv4 ? [] : [.load(end(of: field), into: r0), .compare(r0, .equal, Array(address.packetOctets.suffix(4)))]
        return isEnd + [.load(field, into: r0), .compare(r0, .equal, address.packetOctets)]
    }

    /// Likewise from or to any of the agent's other ports; a rule for each, of which there are seldom any.
    func isOtherPort(_ field: HeaderField) -> [[Expression]] {
        needs.otherPorts.map { port in
            [.load(field, into: r0), .compare(r0, .equal, [UInt8(port >> 8), UInt8(truncatingIfNeeded: port)])] + isProtocol(Self.udp)
                + [.verdict(.accept)]
        }
    }

    /// Loads source and destination into `r0` and `r1`.
    var loadPair: [Expression] {
        // Two loads of four octets are faster than one of eight: the kernel runs them without a call.
        family == .ipv4 ? [.load(source, into: r0), .load(destination, into: r1)] : [.load(pair, into: r0)]
    }

    /// Whether the packet is for an address that this host has now (RTN_LOCAL 2), whatever the agent knows.
    var isLocal: [Expression] { [.addressType(of: .destination, into: r0), .compare(r0, .equal, nativeOctets(UInt32(2)))] }

    var isFromLocal: [Expression] { [.addressType(of: .source, into: r0), .compare(r0, .equal, nativeOctets(UInt32(2)))] }

    /// Sent by `RawInjector`.
    var isReleased: [Expression] { [.meta(.mark, into: r0), .compare(r0, .equal, nativeOctets(configuration.releaseMark))] }

    /// A packet for IPsec comes here twice: before, and again as ESP or AH. What is inside keeps its HoAs, which the other end's
    /// policies and the encrypted checksum speak of; the outer header alone becomes MoAs.
    var willBeEncrypted: [Expression] { [.willBeEncrypted(into: r0), .compare(r0, .equal, [1]), .verdict(.accept)] }

    // MARK: Addresses as octets

    func octets(_ address: IPAddress) -> [UInt8] { Array(address.octets.suffix(Int(width))) }

    /// The bits of a prefix of this length (16-octet form), and the others.
    func mask(_ length: UInt8) -> [UInt8] { octets(IPAddress(high: .max, low: .max).masked(to: length)) }

    func rest(_ length: UInt8) -> [UInt8] { mask(length).map { ~$0 } }

    /// Loads an address; ends the rule unless the prefix covers it.
    func isWithin(_ prefix: IPPrefix, _ field: HeaderField, in register: Register) -> [Expression] {
        [.load(field, into: register), .mask(register, mask(prefix.length)), .compare(register, .equal, octets(prefix.address))]
    }

    /// Loads an address of one prefix as the address of another of the same length: the leading bits are constants.
    func load(_ field: HeaderField, as base: IPAddress, _ length: UInt8, into register: Register) -> [Expression] {
        [.load(field, into: register), .mask(register, rest(length), turning: octets(base))]
    }

    // MARK: Flows

    /// A flow's key from `r0` on, whose address, an HoA or a pair, takes so many registers and is loaded already.
    func flowKey(_ registers: UInt32, _ ports: (HeaderField, HeaderField), protocolNumber: HeaderField? = nil) -> [Expression] {
        let number: Expression = protocolNumber.map { .load($0, into: Register(registers)) } ?? loadProtocol(into: Register(registers))
        return [number, .load(ports.0, into: Register(registers + 1)), .load(ports.1, into: Register(registers + 2))]
    }

    var portsSent: (HeaderField, HeaderField) { (transport(0, 2), transport(2, 2)) }
    var portsAnswered: (HeaderField, HeaderField) { (transport(2, 2), transport(0, 2)) }

    /// Echo has an identifier in place of ports.
    var identifier: (HeaderField, HeaderField) { (transport(4, 2), transport(4, 2)) }

    // MARK: To the agent

    /// A copy to the agent; over the limit the rule ends.
    func copied(as kind: CopyReason) -> [Expression] {
        [.limit(packetsPerSecond: Self.heldPerSecondMax, burst: Self.heldBurstMax), .log(group: configuration.nflogGroup, prefix: kind.rawValue)]
    }

    var untracked: [Expression] { needs.sparesTracking ? [.noTracking] : [] }
}
