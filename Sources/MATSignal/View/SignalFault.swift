/// Why a message can't be read, without the words: whoever drops it needs none, and making them would cost more than all the rest.
public enum SignalFault: Hashable, Sendable {
    // The message
    case header(left: Int)
    case length(octets: Int, left: Int)
    case missing(OptionKind)
    case twoCertificates

    // An option
    case cutOff(OptionKind, octets: Int, left: Int)
    case padding(OptionKind)
    case repeated(OptionKind)
    case wrongLength(OptionKind, octets: Int)
    case badAddress(OptionKind, IPAddress)
    case badPrefix(OptionKind, IPAddress, length: UInt8)
    case notZero(OptionKind)
    case notText
    case noFollower(OptionKind)
    case noLeader(OptionKind)
    /// Critical and unknown. The message is well-formed, so this is told only if nothing else is wrong.
    case unsupported(OptionKind)

    // MAPPING
    case locatorsCount(Int)
    case locatorsLength(octets: Int, count: Int, each: Int)
    case badLocator(IPAddress)
    case locatorPrefix(IPAddress, length: UInt8, wanted: UInt8)
    case locatorTwice(IPAddress)
    case locatorPort(IPAddress, port: UInt16)
    /// Flag E without anything that asks for it.
    case onlyMoAs
    case relaysCount(Int)
    case relayPreferred(IPAddress)
    case lifetime(UInt32, max: UInt32)

    /// In words.
    func error(in type: MessageType?, _ table: OptionTable) -> SignalError {
        if case .unsupported(let kind) = self {
            return SignalError(.unsupportedOption(kind.rawValue), "critical \(table.name(kind)) is unknown")
        }
        return .malformed(reason(in: type, table))
    }

    private func reason(in type: MessageType?, _ table: OptionTable) -> String {
        switch self {
        case .header(let left): "a header needs \(SignalHeader.octetsCount) octets, \(left) are left"
        case .length(let octets, let left): "header says \(octets) octets, \(left) are left"
        case .missing(let kind): "\(type.map { "\($0)" } ?? "message") without \(table.name(kind))"
        case .twoCertificates: "both CERTIFICATE and CERT-ID"
        case .cutOff(let kind, let octets, let left): "\(table.name(kind)) needs \(octets) octets, \(left) are left"
        case .padding(let kind): "padding of \(table.name(kind)) is not zero"
        case .repeated(let kind): "\(table.name(kind)) stands twice"
        case .wrongLength(let kind, let octets): "\(table.name(kind)) of \(octets) octets, \(Self.lengths(kind, table))"
        case .badAddress(let kind, let address): Self.badAddress(table.name(kind), address)
        case .badPrefix(let kind, let address, let length): "\(table.name(kind)): address \(address) does not fit prefix length \(length)"
        case .notZero(let kind): "\(table.name(kind)) has reserved octets that are not zero"
        case .notText: "TEXT is not UTF-8"
        case .noFollower(let kind): "\(table.name(kind)) is not followed by its \(Self.follower(kind, table))"
        case .noLeader(let kind): "\(table.name(kind)) does not follow a \(Self.leader(kind, table))"
        case .unsupported(let kind): "critical \(table.name(kind)) is unknown"
        case .locatorsCount(let count): "MAPPING of \(count) locators, at most \(MappingRecord.locatorsMax)"
        case .locatorsLength(let octets, let count, let each):
            "MAPPING of \(octets) octets, not \(MappingRecordView.headOctets) and \(count) times \(each)"
        case .badLocator(let address): Self.badAddress("locator", address)
        case .locatorPrefix(let moa, let length, let wanted): "locator \(moa) does not fit prefix length \(length), which has to be \(wanted)"
        case .locatorTwice(let moa): "MAPPING lists the locator \(moa) twice"
        case .locatorPort(let address, 0): "the endpoint or relay \(address) has port 0"
        case .locatorPort(let moa, let port): "locator \(moa) has port \(port), which only endpoints and relays have"
        case .onlyMoAs: "MAPPING has flag E, and lists neither endpoints nor relays"
        case .relaysCount(let count): "MAPPING lists \(count) relays, at most \(MappingRecord.relaysMax)"
        case .relayPreferred(let address): "MAPPING prefers the relay \(address) to a locator that is none, or equally"
        case .lifetime(0, _): "MAPPING lifetime is 0 s"
        case .lifetime(let seconds, let most): "MAPPING lifetime of \(seconds) s, at most \(most)"
        }
    }

    private static func badAddress(_ field: String, _ address: IPAddress) -> String {
        "\(field) is \(address), which no host can have here (unspecified, multicast, broadcast, loopback or link-local)"
    }

    private static func lengths(_ kind: OptionKind, _ table: OptionTable) -> String {
        guard let length = table.options.first(where: { $0.kind == kind })?.length else { return "which it can't have" }
        return switch length {
        case .exactly(let count): "not \(count)"
        case .either(let a, let b): "not \(a) or \(b)"
        case .upTo(let most): "at most \(most)"
        case .steps(let least, let step, let most): "not \(least) and up to \((most - least) / max(1, step)) times \(step)"
        case .any: "which it may have"
        }
    }

    private static func follower(_ kind: OptionKind, _ table: OptionTable) -> String {
        table.options.first { $0.kind == kind }?.follower.map(table.name) ?? "follower"
    }

    private static func leader(_ kind: OptionKind, _ table: OptionTable) -> String {
        table.options.first { $0.follower == kind }?.name ?? "leader"
    }
}
