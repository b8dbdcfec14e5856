import MATSignal
import Namespaces

@testable import MATLab

/// How what stands between a host and the internet treats UDP, seen by sockets, in the words of RFC 4787: two servers outside, one of them with
/// two ports.
///
/// ```
///   inner ---- ? ---- plain, port a    what does the server see?        mapping: the same endpoint at all three?
///                     plain, port b    what comes back to it, sent      filtering: only from where was sent to, from that address, from anywhere?
///                     cn               before the host has sent there?
/// ```
struct TranslatorBehaviour: CustomStringConvertible {
    /// A datagram that has not come by then does not come. All of it is on one machine.
    private static let patienceSeconds = 0.3

    let lab: Lab
    let inner: DatagramSocket
    private let plain: (a: DatagramSocket, b: DatagramSocket)
    private let cn: DatagramSocket
    private let family: AddressFamily
    /// Where IPv4 addresses lie for the host inside.
    private let prefix: IPAddress?

    var description: String { "what is before port \(inner.port) of \(host)" }
    private let host: String

    /// - Parameter prefix: of a NAT64, through which IPv4 addresses are reached then.
    init(_ lab: Lab, host: String, port: UInt16 = 0, family: AddressFamily = .ipv4, through prefix: IPAddress? = nil) throws {
        self.lab = lab
        self.host = host
        self.family = family
        self.prefix = prefix
        inner = try DatagramSocket(in: lab.namespace(host), port: port)
        plain = (try DatagramSocket(in: lab.namespace("plain")), try DatagramSocket(in: lab.namespace("plain")))
        cn = try DatagramSocket(in: lab.namespace("cn"))
    }

    private func endpoint(_ host: String, _ port: UInt16) throws -> Endpoint {
        guard let address = lab.topology.addresses(host).compactMap({ IPAddress($0) }).first(where: { $0.family == family }) else {
            throw ShellError("\(host) has no address of \(family)")
        }
        return Endpoint(prefix.map { IPAddress(high: $0.high, low: $0.low | address.low & 0xFFFF_FFFF) } ?? address, port: port)
    }

    /// What a server sees of a datagram from inside; `nil` if it does not come.
    private func seen(by server: DatagramSocket, of host: String) throws -> Endpoint? {
        inner.send("out", to: try endpoint(host, server.port))
        return server.receive(within: Self.patienceSeconds)?.source
    }

    /// The outer endpoint of the inner socket, towards the first server.
    func outer() throws -> Endpoint? { try seen(by: plain.a, of: "plain") }
    /// Towards a server of another's.
    func outer(at other: TranslatorBehaviour) throws -> Endpoint? { try seen(by: other.plain.a, of: "plain") }
    func outerAtAnotherHost() throws -> Endpoint? { try seen(by: cn, of: "cn") }

    func mapping() throws -> Translation.Mapping? {
        guard let first = try outer(), let second = try seen(by: plain.b, of: "plain"), let third = try outerAtAnotherHost() else { return nil }
        if first == second, second == third { return .endpointIndependent }
        return first.port != second.port && second.port != third.port ? .addressAndPortDependent : nil
    }

    /// To be asked before anything has been sent to the other servers. An outer endpoint that is none of a translator's is none either.
    func filtering() throws -> Translation.Filtering? {
        guard let outer = try outer(), isReached(at: outer, from: plain.a) else { return nil }
        if isReached(at: outer, from: cn) { return .endpointIndependent }
        return isReached(at: outer, from: plain.b) ? .addressDependent : .addressAndPortDependent
    }

    /// Whether what the first server sends to an outer endpoint comes in.
    func isReached(at outer: Endpoint) -> Bool { isReached(at: outer, from: plain.a) }

    private func isReached(at outer: Endpoint, from server: DatagramSocket) -> Bool { Self.passes(from: server, to: outer, inner) }

    static func passes(from sender: DatagramSocket, to endpoint: Endpoint, _ receiver: DatagramSocket) -> Bool {
        sender.send("in", to: endpoint)
        return receiver.receive(within: patienceSeconds)?.text == "in"
    }
}
