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
        var hints = addrinfo()
        hints.ai_socktype = SocketType.datagram
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(host, nil, &hints, &list)
        guard code == 0 else {
            throw CommandFailure("the name \(host) in the token is not found: \(String(cString: gai_strerror(code))); is DNS reachable from here?")
        }
        defer { freeaddrinfo(list) }
        var found: [Endpoint] = []
        var entry = list
        while let here = entry {
            if let address = here.pointee.ai_addr, let endpoint = Self.address(address).map({ Endpoint($0, port: port) }), !found.contains(endpoint) {
                found.append(endpoint)
            }
            entry = here.pointee.ai_next
        }
        guard !found.isEmpty else { throw CommandFailure("the name \(host) in the token has no address") }
        return found
    }

    private static func address(_ address: UnsafeMutablePointer<sockaddr>) -> IPAddress? {
        switch Int32(address.pointee.sa_family) {
        case AF_INET:
            return address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { IPAddress(ipv4: UInt32(bigEndian: $0.pointee.sin_addr.s_addr)) }
        case AF_INET6:
            return address.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { here in
                withUnsafeBytes(of: here.pointee.sin6_addr) { IPAddress(octets: Array($0)) }
            }
        default: return nil
        }
    }
}
