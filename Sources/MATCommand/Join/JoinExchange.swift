import Glibc
import MATCore
import MATRuntime
import MATSignal

/// Carries what the holder of a token asks an IMS (`LeaseRequest`) over a socket of its own, until there is an outcome.
final class JoinExchange {
    /// A person waits.
    private static let patience = LeaseRequest.Patience(latersMax: 5, laterSecondsMax: 10)

    private let loop: EventLoop
    private var request: LeaseRequest
    private var random = SystemRandomNumberGenerator()
    private var socket: UDPSocket?
    private var timer: TimerID?
    private var outcome = LeaseRequest.Outcome.silent

    static func run(
        _ token: JoinToken, at servers: [Endpoint], key: SigningKey, wanted: IPPrefix? = nil
    ) throws(CommandFailure) -> LeaseRequest.Outcome {
        try run(.address(wanted, lifetime: nil), token, servers, key)
    }

    /// Gives back what a certificate is for.
    static func giveBack(
        _ certificate: Certificate, by token: JoinToken, at servers: [Endpoint], key: SigningKey
    ) throws(CommandFailure) -> LeaseRequest.Outcome {
        try run(.giveBack(certificate, sequence: 0), token, servers, key)
    }

    private static func run(
        _ purpose: LeaseRequest.Purpose, _ token: JoinToken, _ servers: [Endpoint], _ key: SigningKey
    ) throws(CommandFailure) -> LeaseRequest.Outcome {
        do throws(SystemError) {
            let exchange = try JoinExchange(purpose, token, servers, key, EventLoop())
            exchange.loop.schedule(after: .zero) { exchange.goOn() }
            try exchange.loop.run()
            return exchange.outcome
        } catch {
            throw CommandFailure("\(error)")
        }
    }

    private init(
        _ purpose: LeaseRequest.Purpose, _ token: JoinToken, _ servers: [Endpoint], _ key: SigningKey, _ loop: EventLoop
    ) throws(SystemError) {
        self.loop = loop
        request = LeaseRequest(
            purpose, by: .token(token), at: servers, key: key, patience: Self.patience, random: &random, SystemClock.now().monotonic)
        socket = try UDPSocket(loop: loop, port: 0) { [unowned self] octets, source, _ in receive(Array(octets), source) }
    }

    private func goOn() { perform(request.takeDue(random: &random, SystemClock.now())) }

    private func receive(_ octets: [UInt8], _ source: Endpoint) {
        for case .message(let message, _) in SignalDatagram.decode(octets) {
            if let event = request.received(message, from: source, random: &random, SystemClock.now()) { return perform(event) }
        }
    }

    private func perform(_ event: LeaseRequest.OnEvent) {
        var event = event
        while case .send(let octets, let server) = event, socket?.send(octets, to: server) != nil {
            event = request.askNext(random: &random, SystemClock.now())
        }
        if let timer { loop.cancel(timer) }
        timer = nil
        if case .ended(let outcome) = event {
            self.outcome = outcome
            return loop.stop()
        }
        timer = request.due.map { loop.schedule(at: $0) { [unowned self] in goOn() } }
    }
}

/// Addresses of a host's name, as the system finds them.
enum HostAddresses {
    static func find(_ host: String, port: UInt16) throws(CommandFailure) -> [Endpoint] {
        if let address = IPAddress(host) { return [Endpoint(address, port: port)] }
        let addresses: [IPAddress]
        do throws(NameAddresses.Unknown) { addresses = try NameAddresses.find(host) } catch {
            throw CommandFailure("the name \(host) in the token is not found: \(error.reason); is DNS reachable from here?")
        }
        guard !addresses.isEmpty else { throw CommandFailure("the name \(host) in the token has no address") }
        return addresses.map { Endpoint($0, port: port) }
    }
}
