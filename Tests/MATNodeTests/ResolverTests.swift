import MATRuntime
import MATSignal
import MATTesting
import NodeCore
import Testing

@testable import MATNode

/// Over which links the agent's own DNS questions leave.
@Suite("The way to a resolver") struct ResolverTests {
    @Test("Names are found on this host if a resolver is at a loopback address or at any other of its own")
    func local() throws {
        func isLocal(_ resolver: String) throws -> Bool {
            var configuration = NodeConfiguration()
            configuration.resolvers = [Endpoint(ip(resolver), port: 53)]
            return NodeNames(loop: try EventLoop(), configuration, mark: 0).servers.isLocal(own: [ip("192.168.1.1"), ip("2001:db8:a::1")])
        }
        for own in ["127.0.0.53", "::1", "192.168.1.1", "2001:db8:a::1"] { #expect(try isLocal(own)) }
        for other in ["192.168.1.2", "2001:db8:a::2"] { #expect(try !isLocal(other)) }
    }

    @Test("A resolver is asked from the best own address first, by the kernel's choice where it has a route of its own, and a local one always")
    func ways() throws {
        func ways(_ server: String, hasOwnRoute: Bool = false) -> [IPAddress?] {
            let own = [ip("192.0.2.10"), ip("2001:db8:a::10"), ip("192.0.2.74")]
            return NodeNames.ways(to: .init(Endpoint(ip(server), port: 53)), own: own, hasOwnRoute: { _ in hasOwnRoute })
        }
        #expect(ways("203.0.113.131") == [ip("192.0.2.10"), ip("192.0.2.74"), nil])
        #expect(ways("10.8.0.1", hasOwnRoute: true) == [nil, ip("192.0.2.10"), ip("192.0.2.74")])
        #expect(ways("2001:db8:53::131") == [ip("2001:db8:a::10"), nil])
        for local in ["127.0.0.53", "::1", "fe80::1", "192.0.2.74"] { #expect(ways(local) == [nil]) }
    }
}
