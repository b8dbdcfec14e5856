import IMTPlan
import MATSignal

/// Own addresses whose datagrams leave from another port than 6289 (`LocalPorts`). To the cores each own endpoint has port 6289, whatever the
/// machine uses; what that means outside is said here alone.
///
/// ```
///   cores:    own endpoint 10.1.2.3:6289   ◄──►   machine: 10.1.2.3:61234
/// ```
struct OwnPorts: Sendable {
    private var ports: [IPAddress: UInt16] = [:]
    /// How packets in datagrams leave, as the cores say: with another port the kernel has to be told anew.
    private var carriages: [HomePair: Carriage] = [:]

    func port(of own: IPAddress) -> UInt16 { ports[own] ?? SignalPort.node }

    // MARK: Events

    /// The machine sends from this port now.
    ///
    /// - Returns: what the kernel is to have anew.
    mutating func use(_ port: UInt16, for own: IPAddress) -> [IMTChange] {
        ports[own] = port == SignalPort.node ? nil : port
        return carriages.filter { $0.value.way.own.address == own }.sorted { $0.key < $1.key }.map { .setOutbound($0.key, real($0.value)) }
    }

    // MARK: The kernel

    mutating func real(_ changes: [IMTChange]) -> [IMTChange] {
        var result: [IMTChange] = []
        for change in changes {
            switch change {
            case .setOutbound(let pair, let carriage):
                carriages[pair] = carriage.way.endpoints == nil ? nil : carriage
                result.append(.setOutbound(pair, real(carriage)))
            case .removeOutbound(let pair):
                carriages[pair] = nil
                result.append(change)
            case .moveOutbound(let from, let to):
                result += [change] + moved(from: from.address, to: to.address)
            default: result.append(change)
            }
        }
        return result
    }

    /// What leaves from one own address leaves from another now, with the port of the one before unless that is said.
    private mutating func moved(from: IPAddress, to: IPAddress) -> [IMTChange] {
        let moved = carriages.filter { $0.value.way.own.address == from }.keys.sorted()
        for pair in moved { if let way = carriages[pair]?.way { carriages[pair]?.way = way.leaving(from: MobileAddress(to)) } }
        guard port(of: from) != port(of: to) else { return [] }
        return moved.compactMap { pair in carriages[pair].map { .setOutbound(pair, real($0)) } }
    }

    private func real(_ carriage: Carriage) -> Carriage {
        guard let own = carriage.way.endpoints?.own, ports[own.address] != nil else { return carriage }
        let port = port(of: own.address)
        var result = carriage
        switch carriage.way {
        case .rewritten: break
        case .encapsulated(let own, let peer): result.way = .encapsulated(own: Endpoint(own.address, port: port), peer: peer)
        case .relayed(let own, let relay): result.way = .relayed(own: Endpoint(own.address, port: port), relay: relay)
        }
        return result
    }

    // MARK: Datagrams

    func leaving(_ message: InPathMessage) -> InPathMessage {
        var message = message
        message.own.port = port(of: message.own.address)
        return message
    }

    func arriving(_ message: InPathMessage) -> InPathMessage {
        var message = message
        message.own.port = SignalPort.node
        return message
    }

    func arriving(_ error: DatagramError) -> DatagramError {
        var error = error
        error.port = SignalPort.node
        return error
    }
}
