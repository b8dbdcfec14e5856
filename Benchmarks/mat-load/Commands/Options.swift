import ArgumentParser
import BenchSupport
import CLinux
import Foundation
import MATRuntime
import MATSignal

/// What all kinds of load need to know.
struct TargetOptions: ParsableArguments {
    @Option(help: "The server's address.") var server = "127.0.0.1"
    @Option(name: .customLong("server6"), help: "Its IPv6 address, which nodes of IPv6 talk to.") var server6 = "::1"
    @Option(help: "Its port.") var port = SignalPort.ims
    @Option(help: ArgumentHelp("The nodes: a file that `mat-load population` wrote.", valueName: "file")) var population: String?
    @Option(help: "How long, in seconds.") var seconds = 5.0
    @Option(help: "The core to run on.") var core: Int?
    @Option(help: "Draws other random numbers.") var seed: UInt64 = 1
    @Option(help: ArgumentHelp("Write the figures to this file as JSON; - is standard output.", valueName: "file")) var json: String?

    mutating func validate() throws {
        for text in [server, server6] where IPAddress(text) == nil { throw ValidationError("\(text) is no IP address") }
        guard seconds >= 0.05, seconds <= 86_400 else { throw ValidationError("--seconds wants 0.05 to 86400") }
        if let core, !(0..<64).contains(core) { throw ValidationError("--core wants 0 to 63") }
    }

    func endpoint() throws -> Endpoint {
        guard let address = IPAddress(server) else { throw BenchError("\(server) is no IP address") }
        return Endpoint(address, port: port)
    }

    func servers() throws -> ServerPair {
        guard let v6 = IPAddress(server6) else { throw BenchError("\(server6) is no IP address") }
        return ServerPair(v4: try endpoint(), v6: Endpoint(v6, port: port))
    }

    func nodes() throws -> Nodes {
        guard let population else { throw BenchError("--population is missing; `mat-load population` writes such a file") }
        return try Nodes(try Population(file: population))
    }

    /// For the thread that generates; making and signing before it may use all cores.
    func pin() throws {
        guard let core else { return }
        guard mat_pin_thread(1 << UInt(core)) == 0 else { throw BenchError("pin to core \(core): \(String(cString: strerror(errno)))") }
        yieldToNobody()
    }
}

/// The key that certificates are signed with: a file of `mat keygen`.
struct IssuerOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The server's private key, which signs certificates.", valueName: "file")) var key: String

    func issuer() throws -> SigningKey {
        guard let text = try? TextFile.read(key), let issuer = KeyFile.parsePrivateKey(text) else {
            throw BenchError("\(key) holds no private key; `mat keygen` makes one")
        }
        return issuer
    }
}

/// How and whom queries ask.
struct QueryOptions: ParsableArguments {
    @Option(help: "Which nodes are asked for: uniform, zipf or zipf:EXPONENT.") var distribution = "uniform"
    @Option(help: "Messages in a datagram, 1 to 16.") var messages = 1

    mutating func validate() throws {
        guard Draw.Distribution(distribution) != nil else { throw ValidationError("--distribution wants uniform, zipf or zipf:EXPONENT") }
        guard (1...SignalDatagram.messagesMax).contains(messages) else { throw ValidationError("--messages wants 1 to 16") }
    }

    func asked(_ nodes: Nodes, seed: UInt64) -> Asked {
        Asked(Draw(Draw.Distribution(distribution) ?? .uniform, of: nodes.count, seed: seed), of: nodes)
    }
}

func wallMilliseconds() -> UInt64 { SystemClock.now().wallMilliseconds }
