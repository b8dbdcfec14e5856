import IMTPlan
import MATSignal
import Testing

@testable import IMTKernel
@testable import IMTPlan

/// What one link event writes into the kernel; see Topology for the drawing.
@Suite(
    "One link event", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct LinkPassTests {
    /// How often something was written.
    struct Writes: Equatable {
        var tables: Int
        var routes: Int
        init(_ kernel: IMTKernel) { (tables, routes) = (kernel.tables.transactionsCount, kernel.routes.transactionsCount) }
        init(_ later: Writes, since earlier: Writes) { (tables, routes) = (later.tables - earlier.tables, later.routes - earlier.routes) }
    }

    /// The IPv4 address in use goes, and the agent lets all leave from the other link.
    ///
    /// - Parameters:
    ///   - isAnswered: the agent says what it wants when it is told; otherwise, first which addresses are its MoAs and then the rest, after
    ///     the kernel side has written what it knows by itself.
    ///   - resolver: a DNS server that the other link brought.
    private func lose(isAnswered: Bool, resolver: String? = nil) throws -> (writes: Writes, picture: String) {
        let net = try Topology()
        try net.mapBoth()
        let (old, new) = (MobileAddress(try address("10.1.0.2")), MobileAddress(try address("10.2.0.2")))
        let resolvers = try resolver.map { [IPPrefix(try address($0))] }
        let changes: [IMTChange] = [.removeOwn(old), .moveOutbound(from: old, to: new)] + (resolvers.map { [.setAlwaysPlain($0)] } ?? [])
        func answer(_ kernel: IMTKernel, _ snapshot: LinkSnapshot) throws { try kernel.commit(changes, locators: snapshot.usable) }
        nonisolated(unsafe) var problem: (any Error)?
        if isAnswered {
            net.mn.onLinks = { kernel, snapshot in
                do { try answer(kernel, snapshot) } catch { problem = error }
            }
        }
        let namespace = net.mn.namespace
        let writes = try net.mn.ask { kernel in
            let before = Writes(kernel)
            try namespace.run("ip addr del 10.1.0.2/24 dev wlan")
            // What the monitor has heard is still to come, and is no news then.
            kernel.linksChanged()
            if !isAnswered {
                try kernel.setOwnLocators(try kernel.currentLinks().usable)
                try kernel.commit(changes)
            }
            return Writes(Writes(kernel), since: before)
        }
        net.mn.onLinks = nil
        if let problem { throw problem }
        // The peer hears of it, and the way is open.
        try net.cn.map("198.51.100.1", "192.0.2.1", over: "10.9.0.2", "10.2.0.2")
        let (client, server, _) = try connectTCP(net, to: "198.51.100.1", port: 6001)
        try client.send([1])
        #expect(try server.receive(1) == [1])
        let routes = try namespace.run("ip route show table 6288; ip route show table 8394896; ip rule")
        #expect(net.mn.failures.isEmpty && net.mn.repaired.isEmpty, "\(net.mn.failures) \(net.mn.repaired)")
        if let resolver { #expect(try namespace.run("nft list chain ip mat always_plain").contains(resolver)) }
        return (writes, routes)
    }

    @Test(
        "When the address in use goes and its link stays, nothing leaves that link under the next address: the way is closed before the tables change"
    )
    func closedInBetween() throws {
        let net = try Topology()
        try net.mapBoth()
        let namespace = net.mn.namespace
        // The kernel takes routes away by itself only with a link's last address.
        try namespace.run("ip addr add 10.77.0.9/24 dev wlan")
        _ = try net.mn.ask { $0.linksChanged() }
        let (old, new) = (MobileAddress(try address("10.1.0.2")), MobileAddress(try address("10.2.0.2")))
        nonisolated(unsafe) var seen: [String] = []
        nonisolated(unsafe) var problem: (any Error)?
        net.mn.onLinks = { kernel, snapshot in
            kernel.tables.onTransaction = { seen.append((try? namespace.run("ip route show table 8394896; ip route show table 6288")) ?? "") }
            defer { kernel.tables.onTransaction = nil }
            do { try kernel.commit([.removeOwn(old), .moveOutbound(from: old, to: new)], locators: snapshot.usable) } catch { problem = error }
        }
        let before = try namespace.run("ip route show table 8394896")
        #expect(before.contains("dev wlan"))
        try net.mn.ask { kernel in
            try namespace.run("ip addr del 10.1.0.2/24 dev wlan")
            kernel.linksChanged()
        }
        net.mn.onLinks = nil
        if let problem { throw problem }
        #expect(!seen.isEmpty && seen.allSatisfy { !$0.contains("dev wlan") }, "\(seen)")
        #expect(try namespace.run("ip route show table 8394896").contains("dev cell"))
        #expect(net.mn.failures.isEmpty, "\(net.mn.failures)")
    }

    @Test("An agent that answers a link event has tables and routes written once, with the same end")
    func once() throws {
        let together = try lose(isAnswered: true)
        let apart = try lose(isAnswered: false)
        print("one link event: \(together.writes), in steps: \(apart.writes)")
        #expect(together.writes.tables == 1)
        #expect(together.writes.routes < apart.writes.routes)
        #expect(together.picture == apart.picture)
    }

    @Test("DNS servers that a link event brought are written with it, and make no transaction more")
    func withServers() throws {
        let (without, with) = (try lose(isAnswered: true), try lose(isAnswered: true, resolver: "10.2.0.53"))
        print("one link event: \(without.writes), with other DNS servers: \(with.writes)")
        #expect(with.writes.tables == 1)
        #expect(with.writes.routes == without.writes.routes)
        #expect(with.picture.contains("10.2.0.53"))
    }
}
