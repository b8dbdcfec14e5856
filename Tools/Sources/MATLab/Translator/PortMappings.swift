import MATSignal

/// Which outer port stands for which inner endpoint, and who may send to it: the state of a NAT, for those kinds that nftables has not.
///
/// ```
///   key: inner endpoint, and by mapping the remote one          first packet out
///              |                                                       |
///              v                                                       v
///           Mapping  port outside, made at, flows ------- (none) --> (made) -- no flow lives any more, or the age is reached --> (gone)
///                      |
///                      v by remote endpoint
///                    Flow  last packet, answered?           what comes in passes by filtering: any mapping that lives,
///                                                           one with a flow to that address, or to that address and port
/// ```
///
/// Dead mappings and flows go when they are met, or when room is needed.
struct PortMappings: ~Copyable {
    enum Transport: Hashable {
        case udp
        case tcp
        /// Echo requests; the identifier is the inner port.
        case echo
    }

    /// Since an arbitrary moment.
    typealias Milliseconds = Int64

    /// Without packets.
    private static let tcpSeconds = 7440
    private static let echoSeconds = 60
    static let mappingsMax = 16_384
    static let flowsOfMappingMax = 4096

    private struct Key: Hashable {
        var transport: Transport
        var inner: Endpoint
        var remote: Endpoint?
    }

    private struct Flow {
        var lastPacket: Milliseconds
        var isAnswered: Bool
    }

    /// An object, so that a packet changes one flow where it is, and copies none.
    private final class Mapping {
        let key: Key
        let port: UInt16
        let made: Milliseconds
        var flows: [Endpoint: Flow] = [:]

        init(key: Key, port: UInt16, made: Milliseconds) {
            self.key = key
            self.port = port
            self.made = made
        }
    }

    private struct Outer: Hashable {
        var transport: Transport
        var port: UInt16
    }

    private let rules: Translation
    /// Ports that are chosen from for an inner address.
    private let ports: @Sendable (IPAddress) -> ClosedRange<UInt16>
    private var mappings: [Key: Mapping] = [:]
    private var byPort: [Outer: Mapping] = [:]

    init(_ rules: Translation, ports: @escaping @Sendable (IPAddress) -> ClosedRange<UInt16> = { _ in 1024...65_535 }) {
        self.rules = rules
        self.ports = ports
    }

    /// A packet out.
    ///
    /// - Returns: the port that it has outside; `nil` if there is none left.
    mutating func out(
        _ transport: Transport, from inner: Endpoint, to remote: Endpoint, now: Milliseconds, using random: inout some RandomNumberGenerator
    ) -> UInt16? {
        let key = key(transport, inner, remote)
        guard let mapping = living(mappings[key], now) ?? make(key, now, using: &random) else { return nil }
        let known = mapping.flows[remote]
        if known == nil, mapping.flows.count >= Self.flowsOfMappingMax {
            mapping.flows = mapping.flows.filter { lives($0.value, transport, now) }
            guard mapping.flows.count < Self.flowsOfMappingMax else { return nil }
        }
        let isAnswered = known.map { $0.isAnswered && lives($0, transport, now) } ?? false
        mapping.flows[remote] = Flow(lastPacket: now, isAnswered: isAnswered)
        return mapping.port
    }

    /// A packet in.
    ///
    /// - Returns: whom it is for; `nil` if it is not let in.
    mutating func come(_ transport: Transport, to port: UInt16, from remote: Endpoint, now: Milliseconds) -> Endpoint? {
        guard let mapping = living(byPort[Outer(transport: transport, port: port)], now) else { return nil }
        let flow = mapping.flows[remote].flatMap { lives($0, transport, now) ? $0 : nil }
        let passes =
            switch rules.filtering {
            case .endpointIndependent: true
            case .addressDependent: mapping.flows.contains { $0.key.address == remote.address && lives($0.value, transport, now) }
            case .addressAndPortDependent: flow != nil
            }
        guard passes else { return nil }
        if flow != nil { mapping.flows[remote] = Flow(lastPacket: now, isAnswered: true) }
        return mapping.key.inner
    }

    /// Of a flow that is there, for the packet that an ICMP error quotes. Changes nothing.
    func port(_ transport: Transport, of inner: Endpoint, to remote: Endpoint) -> UInt16? { mappings[key(transport, inner, remote)]?.port }
    func inner(_ transport: Transport, at port: UInt16) -> Endpoint? { byPort[Outer(transport: transport, port: port)]?.key.inner }

    // MARK: Life

    private func key(_ transport: Transport, _ inner: Endpoint, _ remote: Endpoint) -> Key {
        Key(transport: transport, inner: inner, remote: rules.mapping == .endpointIndependent ? nil : remote)
    }

    private func lives(_ flow: Flow, _ transport: Transport, _ now: Milliseconds) -> Bool {
        let seconds =
            switch transport {
            case .udp: flow.isAnswered ? rules.answeredSeconds : rules.unansweredSeconds
            case .tcp: Self.tcpSeconds
            case .echo: Self.echoSeconds
            }
        return now - flow.lastPacket < Milliseconds(seconds) * 1000
    }

    private func lives(_ mapping: Mapping, _ now: Milliseconds) -> Bool {
        if let age = rules.ageSeconds, now - mapping.made >= Milliseconds(age) * 1000 { return false }
        return mapping.flows.contains { lives($0.value, mapping.key.transport, now) }
    }

    /// The mapping, if it lives; one that does not goes.
    private mutating func living(_ mapping: Mapping?, _ now: Milliseconds) -> Mapping? {
        guard let mapping else { return nil }
        if lives(mapping, now) { return mapping }
        mappings[mapping.key] = nil
        byPort[Outer(transport: mapping.key.transport, port: mapping.port)] = nil
        return nil
    }

    private mutating func make(_ key: Key, _ now: Milliseconds, using random: inout some RandomNumberGenerator) -> Mapping? {
        if mappings.count >= Self.mappingsMax { for mapping in Array(mappings.values) { _ = living(mapping, now) } }
        guard mappings.count < Self.mappingsMax, let port = freePort(key, now, using: &random) else { return nil }
        let mapping = Mapping(key: key, port: port, made: now)
        mappings[key] = mapping
        byPort[Outer(transport: key.transport, port: port)] = mapping
        return mapping
    }

    /// The inner port, if flows to any destination share it and it is free; else any, from a random place on.
    private mutating func freePort(_ key: Key, _ now: Milliseconds, using random: inout some RandomNumberGenerator) -> UInt16? {
        let range = ports(key.inner.address)
        if rules.mapping == .endpointIndependent, range.contains(key.inner.port), isFree(key.transport, key.inner.port, now) { return key.inner.port }
        let start = UInt16.random(in: range, using: &random)
        for port in start...range.upperBound where isFree(key.transport, port, now) { return port }
        for port in range.lowerBound...start where isFree(key.transport, port, now) { return port }
        return nil
    }

    private mutating func isFree(_ transport: Transport, _ port: UInt16, _ now: Milliseconds) -> Bool {
        living(byPort[Outer(transport: transport, port: port)], now) == nil
    }
}
