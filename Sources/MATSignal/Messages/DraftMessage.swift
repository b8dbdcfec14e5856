/// The bodies of draft-inayat-mat-00 (X=0, section 9). Such answers carry no proof: servers give them only to configured
/// prefixes, and nodes drop them all.
///
/// ```
/// type 3:        HoA 16 | timestamp 4
/// type 4 and 1:  HoA 16 | MoA 16 x n, in order | timestamp 4 | lifetime 4
/// type 2:        header only
/// ```
public struct DraftMessage: Hashable, Sendable {
    public enum Body: Hashable, Sendable {
        /// Timestamp in Unix seconds.
        case query(HomeAddress, timestamp: UInt32)
        /// Types 4 (`isUpdate` false) and 1. Lifetime in seconds.
        case mapping(HomeAddress, [MobileAddress], timestamp: UInt32, lifetime: UInt32, isUpdate: Bool)
        case updateReply
    }

    public var code: ResponseCode
    public var sequence: UInt32
    public var body: Body

    public init(code: ResponseCode = .ok, sequence: UInt32, body: Body) {
        self.code = code
        self.sequence = sequence
        self.body = body
    }

    /// - Parameter view: a message without options.
    init(_ type: MessageType, _ view: SignalView) throws(SignalError) {
        code = view.code
        sequence = view.sequence
        var reader = SignalReader(view.body)
        switch type {
        case .maQuery:
            body = .query(HomeAddress(try reader.address("HoA")), timestamp: try reader.uint32("timestamp"))
        case .maAnswer, .imsUpdate:
            let hoa = HomeAddress(try reader.address("HoA"))
            var moas: [MobileAddress] = []
            while reader.remaining > 8 { moas.append(MobileAddress(try reader.address("MoA"))) }
            body = .mapping(
                hoa, moas, timestamp: try reader.uint32("timestamp"), lifetime: try reader.uint32("lifetime"),
                isUpdate: type == .imsUpdate)
        case .imsUpdateReply:
            body = .updateReply
        default:
            throw SignalError(.draftBody, "type \(type.rawValue) has no draft body")
        }
        try reader.finish("draft message")
    }

    public var octets: [UInt8] {
        var writer = SignalWriter()
        let type: MessageType
        switch body {
        case .query: type = .maQuery
        case .mapping(_, _, _, _, let isUpdate): type = isUpdate ? .imsUpdate : .maAnswer
        case .updateReply: type = .imsUpdateReply
        }
        writer.uint8(type.rawValue)
        writer.uint8(code.rawValue)
        writer.uint8(0)
        writer.uint8(0)
        writer.uint32(sequence)
        switch body {
        case .query(let hoa, let timestamp):
            writer.address(hoa.address)
            writer.uint32(timestamp)
        case .mapping(let hoa, let moas, let timestamp, let lifetime, _):
            writer.address(hoa.address)
            for moa in moas { writer.address(moa.address) }
            writer.uint32(timestamp)
            writer.uint32(lifetime)
        case .updateReply:
            break
        }
        writer.patch(uint8: UInt8(truncatingIfNeeded: writer.count / 4), at: 3)
        return writer.octets
    }
}
