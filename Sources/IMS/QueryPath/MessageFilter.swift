import MATServer
import MATSignal

/// What the kernel need not bring to a worker: datagrams that get no answer whatever their source, because they are no message; and, while a
/// flood comes, all but a part of the kind that it consists of.
///
/// ```
///   under 8 octets, over 1232, first octet 0x40 or more, Length < 2 ─────────────────► refused
///   unknown type, or the draft's form: Length beyond the datagram ───────────────────► refused
///                                      all else ─────────────────────────────────────► unreadable
///   first option beyond the datagram: no COOKIE can be read (section 2) ─────────────► refused
///   Length beyond the datagram, Path Probe, Path Answer ─────────────────────────────► unreadable
///   requests but queries: COOKIE with a server cookie does not come first ───────────► unproven
///   HA Notify, MA Notify ────────────────────────────────────────────────────────────► notify
///   Join ────────────────────────────────────────────────────────────────────────────► join
///   answers, acks ───────────────────────────────────────────────────────────────────► response
///   queries, IMS Update and Bind with a server cookie ───────────────────────────────► accepted
/// ```
/// The five kinds are accepted too, but for what `FloodSampling` says while there are too many. Nothing here knows a cookie's worth. Queries are
/// never sampled: by them a node that has just arrived gets its cookie (section 7), and with it is no longer unproven. Of responses, too many are those
/// that nobody asked for: after a move of many nodes there may be a great many acks.
///
/// Said twice, as the kernel's program and in Swift, which counts what came: the tests hold one against the other.
struct MessageFilter: Hashable, Sendable {
    /// What a flood may consist of; each has a budget of its own.
    enum Kind: Int, CaseIterable, Sendable {
        case unreadable
        case unproven
        case notify
        case join
        /// Sampled while those that nobody asked for are too many.
        case response
    }

    enum Verdict: Hashable, Sendable {
        case refused
        case accepted
        case sampled(Kind)
    }

    /// The lines of a kind's sources of which only a part is let through.
    struct Sample: Hashable, Sendable {
        var lines: UInt32 = 0
        var part = 1.0
    }

    /// Odd numbers that nobody outside knows: which sources fall into one line.
    let keys: (UInt32, UInt32)
    /// Of each kind, by its number.
    var samples = [Sample](repeating: Sample(), count: Kind.allCases.count)

    init(keys: (UInt32, UInt32)) { self.keys = (keys.0 | 1, keys.1 | 1) }

    static func == (a: MessageFilter, b: MessageFilter) -> Bool { a.keys == b.keys && a.samples == b.samples }

    func hash(into hasher: inout Hasher) {
        hasher.combine(keys.0)
        hasher.combine(keys.1)
        hasher.combine(samples)
    }

    // MARK: In Swift

    static func verdict(_ datagram: UnsafeRawBufferPointer) -> Verdict {
        guard datagram.count >= SignalHeader.octetsCount, datagram.count <= SignalDatagram.octetsMax else { return .refused }
        let type = datagram[0]
        let end = Int(datagram[3]) * 4
        guard type < SignalDatagram.firstOctetLimit, end >= SignalHeader.octetsCount else { return .refused }
        guard let known = MessageType(rawValue: type), datagram[2] & SignalHeader.optionsFlag != 0 else {
            return end > datagram.count ? .refused : .sampled(.unreadable)
        }
        guard datagram.count >= SignalHeader.octetsCount + optionHead else { return .refused }
        let kind = UInt16(datagram[8]) << 8 | UInt16(datagram[9])
        let length = Int(datagram[10]) << 8 | Int(datagram[11])
        guard SignalHeader.octetsCount + optionHead + length <= datagram.count else { return .refused }
        guard end <= datagram.count else { return .sampled(.unreadable) }
        switch known {
        case .pathProbe, .pathAnswer: return .sampled(.unreadable)
        case .maQuery, .haQuery: return .accepted
        case _ where !known.isRequest: return .sampled(.response)
        case _ where kind != OptionKind.cookie.rawValue || length != provenCookie: return .sampled(.unproven)
        case .haNotify, .maNotify: return .sampled(.notify)
        case .join: return .sampled(.join)
        default: return .accepted
        }
    }

    private static let optionHead = 4
    /// Octets of a COOKIE with both parts.
    private static let provenCookie = 24

    /// Which line a source is in: IPv4 by the whole address, IPv6 by the /64, as for shares.
    func line(of source: IPAddress) -> Int {
        let word: UInt32 =
            source.family == .ipv4
            ? UInt32(truncatingIfNeeded: source.low)
            : UInt32(truncatingIfNeeded: source.high >> 32) &* keys.1 ^ UInt32(truncatingIfNeeded: source.high)
        return Int((word &* keys.0) >> Self.lineShift)
    }

    /// Leaves five bits, for 32 lines.
    private static let lineShift: UInt32 = 27

    // MARK: For the kernel

    private static let type = SocketFilter.payloadOffset
    private static let flags = type + 2
    private static let length = type + 3
    private static let firstOption = type + UInt32(SignalHeader.octetsCount)
    private static let firstValue = firstOption + UInt32(optionHead)
    private static let unknown = "unknown type or draft"
    private static let answer = "no request"

    var program: SocketFilter {
        var filter = SocketFilter()
        filter.loadLength()
        filter.ifLess(Self.firstOption, .refuse)
        filter.ifGreater(SocketFilter.payloadOffset + UInt32(SignalDatagram.octetsMax), .refuse)
        filter.loadOctet(at: Self.type)
        filter.ifGreater(UInt32(SignalDatagram.firstOctetLimit) - 1, .refuse)
        filter.loadOctet(at: Self.length)
        filter.ifLess(UInt32(SignalHeader.octetsCount / 4), .refuse)
        Self.keepEnd(&filter)
        filter.loadOctet(at: Self.type)
        filter.ifEqual(0, .label(Self.unknown))
        filter.ifGreater(UInt32(MessageType.joinReply.rawValue), .label(Self.unknown))
        filter.loadOctet(at: Self.flags)
        filter.ifAnyBit(of: UInt32(SignalHeader.optionsFlag), .next, else: .label(Self.unknown))
        filter.loadLength()
        filter.ifLess(Self.firstValue, .refuse)
        filter.loadHalf(at: Self.firstOption + 2)
        filter.add(Self.firstValue)
        filter.keepInX()
        filter.loadLength()
        filter.ifLessThanX(.refuse)
        Self.keepEnd(&filter)
        filter.loadLength()
        filter.ifLessThanX(Self.target(.unreadable))
        filter.loadOctet(at: Self.type)
        filter.ifAnyBit(of: 1, .next, else: .label(Self.answer))
        filter.ifEqual(UInt32(MessageType.maQuery.rawValue), .accept)
        filter.ifEqual(UInt32(MessageType.haQuery.rawValue), .accept)
        filter.ifEqual(UInt32(MessageType.pathProbe.rawValue), Self.target(.unreadable))
        filter.loadHalf(at: Self.firstOption)
        filter.ifEqual(UInt32(OptionKind.cookie.rawValue), .next, else: Self.target(.unproven))
        filter.loadHalf(at: Self.firstOption + 2)
        filter.ifEqual(UInt32(Self.provenCookie), .next, else: Self.target(.unproven))
        filter.loadOctet(at: Self.type)
        filter.ifEqual(UInt32(MessageType.imsUpdate.rawValue), .accept)
        filter.ifEqual(UInt32(MessageType.bind.rawValue), .accept)
        filter.ifEqual(UInt32(MessageType.join.rawValue), Self.target(.join), else: Self.target(.notify))
        filter.label(Self.answer)
        filter.ifEqual(UInt32(MessageType.pathAnswer.rawValue), Self.target(.unreadable), else: Self.target(.response))
        filter.label(Self.unknown)
        filter.loadLength()
        filter.ifLessThanX(.refuse)
        for kind in Kind.allCases { sample(kind, &filter) }
        return filter
    }

    private static func target(_ kind: Kind) -> SocketFilter.Target { .label("\(kind)") }

    /// X becomes where the first message ends.
    private static func keepEnd(_ filter: inout SocketFilter) {
        filter.loadOctet(at: length)
        filter.shiftLeft(2)
        filter.add(SocketFilter.payloadOffset)
        filter.keepInX()
    }

    /// The end of what is of this kind.
    private func sample(_ kind: Kind, _ filter: inout SocketFilter) {
        let sample = samples[kind.rawValue]
        filter.label("\(kind)")
        guard sample.lines != 0, sample.part < 1 else { return filter.go(to: .accept) }
        filter.loadProtocol()
        filter.ifEqual(SocketFilter.ipv6, .next, else: .label("\(kind) IPv4"))
        // The first half of the source address.
        filter.loadIPWord(at: 8)
        filter.multiply(by: keys.1)
        filter.keepInX()
        filter.loadIPWord(at: 12)
        filter.exclusiveOrX()
        filter.go(to: .label("\(kind) line"))
        filter.label("\(kind) IPv4")
        filter.loadIPWord(at: 12)
        filter.label("\(kind) line")
        filter.multiply(by: keys.0)
        filter.shiftRight(Self.lineShift)
        filter.keepInX()
        filter.load(sample.lines)
        filter.shiftRightByX()
        filter.ifAnyBit(of: 1, .next, else: .accept)
        filter.loadRandom()
        filter.ifGreater(UInt32(max(0, sample.part) * Double(UInt32.max)), .refuse, else: .accept)
    }
}
