import ArgumentParser
import BenchSupport
import CLinux
import Foundation
import Glibc
import MATCore
import MATRuntime
import MATSignal
import Namespaces
import RelayCore

/// What a relay forwards, beside the same host as a router, in the same run; and what its bindings cost.
@main
struct RelayLoad: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "relay-load",
        abstract: "Measures mat-relay, which stands beside this program, and coturn: packets, round trips, bindings. Needs root.",
        version: MATVersion.text)

    @Option(help: "Rounds; each measures every variant once.")
    var rounds = 5
    @Option(help: "Seconds for each variant and round.")
    var seconds = 0.5
    @Option(help: "Octets of a packet between home addresses.")
    var octets = 60
    @Option(help: "Bindings whose memory and refreshes are measured.")
    var bindings = 100_000
    @Option(help: "Threads of the relay.")
    var threads = 1

    func run() throws {
        Namespace.removeStaleBenches()
        try forward()
        try hold()
    }

    // MARK: Packets

    private struct Variant {
        let name: String
        /// What its ratio is to.
        let base: String
        let there: Window
        let back: Window
    }

    private func forward() throws {
        let cores = try Cores(measured: nil)
        // Before any relay is started: those are to be there as well.
        try cores.pinToMeasured()
        yieldToNobody()
        // A host for each way of forwarding: a program at its links would cost the others something too.
        let (agent, kernel) = (try Site("a"), try Site("k"))
        defer {
            agent.end()
            kernel.end()
        }
        try agent.startRelay("agent", threads: threads)
        try kernel.startRelay("kernel", threads: threads)
        var variants: [Variant] = []
        for (name, isIPv4) in [("IPv4", true), ("IPv6", false)] {
            let plain = [UInt8](repeating: 0, count: octets)
            let (a, b) = try agent.plainEnds(isIPv4)
            variants.append(
                Variant(name: "plain \(name)", base: "plain \(name)", there: Window(a, b, plain, to: b.place), back: Window(b, a, plain, to: a.place))
            )
            for (site, who) in [(agent, "agent"), (kernel, "kernel")] {
                let (a, b) = try site.boundEnds(isIPv4, isIPv4)
                variants.append(
                    Variant(
                        name: "\(who) \(name)", base: "plain \(name)", there: Window(a.end, b.end, packet(a.hoa, b.hoa), to: a.end.relay),
                        back: Window(b.end, a.end, packet(b.hoa, a.hoa), to: b.end.relay)))
            }
        }
        let (a, b) = try agent.boundEnds(true, false)
        variants.append(
            Variant(
                name: "agent 4 to 6", base: "plain IPv4", there: Window(a.end, b.end, packet(a.hoa, b.hoa), to: a.end.relay),
                back: Window(b.end, a.end, packet(b.hoa, a.hoa), to: b.end.relay)))
        do {
            let turn = try agent.startTURN()
            let plain = [UInt8](repeating: 0, count: octets)
            variants.append(
                Variant(
                    name: "coturn IPv4", base: "plain IPv4", there: Window(turn.client, turn.peer, turn.channel(plain), to: turn.client.relay),
                    back: Window(turn.peer, turn.client, plain, to: turn.relayed)))
        } catch {
            print("coturn is left out: \(error)")
        }
        measure(variants)
    }

    private func measure(_ variants: [Variant]) {
        var rates: [String: [Double]] = [:]
        var trips = rates
        var ratios = rates
        for round in 0..<rounds {
            // Rotated, so that none always comes after the same one.
            let shift = round * 3 % variants.count
            var ofRound: [String: Double] = [:]
            for variant in variants[shift...] + variants[..<shift] {
                ofRound[variant.name] = variant.there.rate(seconds: seconds)
                trips[variant.name, default: []].append(Window.roundTrip(variant.there, variant.back, count: 1000))
            }
            for variant in variants {
                guard let rate = ofRound[variant.name], let base = ofRound[variant.base] else { continue }
                rates[variant.name, default: []].append(rate)
                ratios[variant.name, default: []].append(rate / base)
            }
        }
        print("variant        packets/s     ratio    spread   round trip us   (\(octets) octets, windows of \(Window.size), medians of \(rounds))")
        for variant in variants {
            let ratios = ratios[variant.name] ?? []
            print(
                variant.name.padding(toLength: 14, withPad: " ", startingAt: 0)
                    + String(
                        format: "%10.0f %9.3f %8.1f%% %15.1f", (rates[variant.name] ?? []).median, ratios.median,
                        50 * (ratios.quantile(0.75) - ratios.quantile(0.25)), (trips[variant.name] ?? []).median / 1000))
        }
        print(Machine.line(Machine.facts()))
    }

    private func packet(_ source: HomeAddress, _ destination: HomeAddress) -> [UInt8] {
        var packet: [UInt8] = [0x45, 0, UInt8(octets >> 8 & 0xFF), UInt8(octets & 0xFF), 0, 0, 0, 0, 64, 17, 0, 0]
        packet += source.address.packetOctets + destination.address.packetOctets
        return packet + [UInt8](repeating: 0, count: max(0, octets - packet.count))
    }

    // MARK: Bindings

    /// Memory of each, and how many are refreshed in a second by one thread.
    private func hold() throws {
        let configuration = RelayCoreConfiguration(residents: [ResidentPrefix(IPPrefix(covering: try address("10.0.0.0"), length: 104))])
        var limits = configuration
        limits.limits.bindingsMax = bindings
        guard var core = RelayCore(limits, cookieSecret: [UInt8](repeating: 1, count: 16)) else { throw BenchError("no core") }
        let local = Endpoint(try address("192.0.2.1"), port: SignalPort.relay)
        let now = SystemClock.now()
        func source(_ number: Int) -> Endpoint { Endpoint(IPAddress(ipv4: 0x2000_0000 + UInt32(number)), port: 6289) }
        func hoa(_ number: Int) -> IPAddress { IPAddress(ipv4: 0x0A00_0000 + UInt32(number)) }
        let before = mat_heap_octets()
        do {
            let saved = (0..<bindings).map { number in
                SavedBinding(
                    prefix: IPPrefix(hoa(number)), endpoint: source(number), local: local, until: now.wallMilliseconds + 600_000,
                    signedAt: now.wallMilliseconds, certificateNotAfter: .max, lifetimeSeconds: 600, cookieTime: now.wallSeconds, clientCookie: 7)
            }
            _ = core.restore(SavedRelay(month: "", octetsOfMonth: [], bindings: saved), now: now)
        }
        let octetsEach = Double(mat_heap_octets() - before) / Double(bindings)
        var datagrams: [[UInt8]] = []
        for number in 0..<min(bindings, 10_000) {
            let ask = SignalMessage(sequence: 1, .bind(.padded(cookie: Cookie(client: 7), .ask))).octets
            for case .send(let octets, _, _) in core.received(ask, from: source(number), to: local, now: now) {
                guard case .message(let message, _)? = SignalDatagram.decode(octets).first else { continue }
                datagrams.append(SignalMessage(sequence: 2, .bind(.padded(cookie: message.cookie, .refresh(HomeAddress(hoa(number)))))).octets)
            }
        }
        let began = Ticks.thread()
        for (number, datagram) in datagrams.enumerated() { _ = core.received(datagram, from: source(number), to: local, now: now) }
        let perSecond = Double(datagrams.count) * 1e9 / Double(Ticks.thread() - began)
        guard core.counters.refreshes == UInt64(datagrams.count) else { throw BenchError("only \(core.counters.refreshes) refreshes were granted") }
        let payload = packet(HomeAddress(hoa(1)), HomeAddress(hoa(2)))
        let (count, start) = (200_000, Ticks.thread())
        for number in 0..<count {
            let own = number % max(1, bindings - 1)
            var payload = payload
            for (place, octet) in hoa(own).packetOctets.enumerated() { payload[12 + place] = octet }
            _ = payload.withUnsafeBytes { core.forward($0, from: source(own), now: now.monotonic) }
        }
        let nanoseconds = Double(Ticks.thread() - start) / Double(count)
        print(
            String(
                format: "%d bindings: %.0f octets each; %.0f refreshes/s of one thread; %.0f ns to decide about a packet of any of them", bindings,
                octetsEach, perSecond, nanoseconds))
    }

}
