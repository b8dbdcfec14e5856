import Glibc
import MATControl
import MATLab
import MATProbe
import Namespaces
import Synchronization

/// Carries patterns out in a lab that stands, and measures them.
///
/// ```
///   mover   ---- old network ----X                     new network: address ----------------------->      time
///                                                                   |<--- to peer --->|  the first packet sent since then arrives there
///                                                                   |<-- to mover -->|   and here
///                                                                   |<------ final path after ------>|    both agents say so
/// ```
public struct PatternRun {
    /// Of everything through the lab's router, there and back.
    public static let roundTripMilliseconds = 40
    /// Until packets arrive again; until the path is the expected one; until two agents without traffic of their own have found each other.
    private static let resumptionSeconds = 15.0
    private static let finalSeconds = 20.0
    private static let settleSeconds = 30.0
    /// For how long the final path is watched.
    private static let watchSeconds = 0.5
    private static let firstPort: UInt16 = 7700

    private let lab: Lab
    private var topology: Topology { lab.topology }
    private var networks: AccessNetworks { AccessNetworks(lab: lab) }
    private var daemons: Daemons { Daemons(lab: lab) }
    /// Both networks are there for a while: nothing may be lost then.
    private let withOverlap: Bool
    private let speakers: Conversation.Speakers
    private let say: (PatternResult) -> Void

    public init(
        lab: Lab, withOverlap: Bool = false, speakers: Conversation.Speakers = .both, say: @escaping (PatternResult) -> Void = { _ in }
    ) {
        self.lab = lab
        self.withOverlap = withOverlap
        self.speakers = speakers
        self.say = say
    }

    /// - Parameter number: of the walk, for ports that nobody else has.
    public func run(_ walk: Walk, number: Int) throws -> [PatternResult] {
        guard let first = walk.patterns.first else { return [] }
        try begin(walk.setting)
        defer {
            try? end(walk.setting)
            try? daemons.setClocksRight()
        }
        try takeToStart(first.start, walk)
        for end in [walk.near, walk.far] { try awaitRegistration(end) }
        let port = Self.firstPort + UInt16(clamping: number)
        let conversation: Conversation
        do {
            conversation = try Conversation(lab, walk.near, walk.far, port: port, speakers: speakers)
        } catch {
            // Nothing can be measured; the walks after it may.
            let results = walk.patterns.map { PatternResult($0, walk: walk, withOverlap: withOverlap, problem: "no conversation began: \(error)") }
            results.forEach(say)
            return results
        }
        var results: [PatternResult] = []
        for pattern in walk.patterns {
            var result = try measure(pattern, walk, conversation)
            if !conversation.ends.isEmpty { result.problems += conversation.ends }
            results.append(result)
            say(result)
            // What has ended goes on no more.
            if !conversation.ends.isEmpty { break }
        }
        let rest = conversation.end()
        if let last = results.indices.last {
            if rest.missing > 0 { results[last].problems.append("\(rest.missing) octets of the TCP connection did not arrive") }
            if rest.isDamaged { results[last].problems.append("octets of the TCP connection came in another order or twice") }
            for pattern in walk.patterns.dropFirst(results.count) {
                results.append(PatternResult(pattern, walk: walk, withOverlap: withOverlap, problem: "the conversation had ended before"))
            }
        }
        return results
    }

    private func begin(_ setting: Walk.Setting) throws {
        switch setting {
        case .usual: break
        case .gateway: try PlainGateway(lab: lab).begin()
        case .instances: try Instances(lab: lab).begin()
        }
    }

    private func end(_ setting: Walk.Setting) throws {
        switch setting {
        case .usual: break
        case .gateway: try PlainGateway(lab: lab).end()
        case .instances: try Instances(lab: lab).end()
        }
    }

    // MARK: One pattern

    private func measure(_ pattern: Pattern, _ walk: Walk, _ conversation: Conversation) throws -> PatternResult {
        var result = PatternResult(pattern, walk: walk, withOverlap: withOverlap)
        try takeToStart(pattern.start, walk)
        guard conversation.goesOn(within: Self.settleSeconds) else {
            result.problems.append("nothing arrives at the start, in \(pattern.start.map { "\($0.host) in \($0.network)" }.joined(separator: ", "))")
            return result
        }
        result.before = try settledPath(walk)
        let began = ProbeClock.now()
        guard let since = try carryOut(pattern.event, walk) else {
            result.problems.append("no address came")
            return result
        }
        try awaitResumption(&result, conversation, since)
        try awaitPath(pattern.expected, &result, walk, since)
        let final = ProbeClock.now()
        sleep(seconds: Self.watchSeconds)
        let flows = conversation.flows
        let now = ProbeClock.now()
        let gaps = [(speakers.isNear, flows.toFar), (speakers.isFar, flows.toNear)].filter(\.0).map { $0.1.longestGap(from: final, to: now) }
        result.longestGapThen = Self.milliseconds(gaps.max() ?? 0)
        // The last ones may be under way.
        let settled = now - Int64(Self.roundTripMilliseconds) * 2_000_000
        result.lostToPeer = flows.toFar.lost(from: began, to: settled)
        result.lostToMover = flows.toNear.lost(from: began, to: settled)
        let streams = conversation.streams
        result.streamToPeer = streams.toFar.resumption(after: since).map { Self.milliseconds($0 - since) }
        result.streamToMover = streams.toNear.resumption(after: since).map { Self.milliseconds($0 - since) }
        if withOverlap, case .move = pattern.event, result.lostToPeer + result.lostToMover > 0 {
            result.problems.append("\(result.lostToPeer) and \(result.lostToMover) packets were lost in spite of the overlap")
        }
        return result
    }

    private func awaitResumption(_ result: inout PatternResult, _ conversation: Conversation, _ since: Int64) throws {
        let deadline = monotonicSeconds() + Self.resumptionSeconds
        while monotonicSeconds() < deadline {
            try MATLab.Interruption.check()
            let flows = conversation.flows
            result.toPeer = flows.toFar.resumption(after: since).map { Self.milliseconds($0 - since) }
            result.toMover = flows.toNear.resumption(after: since).map { Self.milliseconds($0 - since) }
            if result.toPeer != nil || !speakers.isNear, result.toMover != nil || !speakers.isFar { return }
            usleep(5_000)
        }
        for (time, isSpokenTo, name) in [(result.toPeer, speakers.isNear, "peer"), (result.toMover, speakers.isFar, "mover")]
        where time == nil && isSpokenTo {
            result.problems.append("nothing arrives at the \(name) within \(Int(Self.resumptionSeconds)) s")
        }
    }

    private func awaitPath(_ expected: Pattern.Path, _ result: inout PatternResult, _ walk: Walk, _ since: Int64) throws {
        let deadline = monotonicSeconds() + Self.finalSeconds
        while true {
            try MATLab.Interruption.check()
            result.after = try paths(walk)
            if result.after.allSatisfy({ $0 == expected.rawValue }) {
                result.final = Self.milliseconds(ProbeClock.now() - since)
                return
            }
            guard monotonicSeconds() < deadline else { break }
            usleep(20_000)
        }
        result.problems.append("the path is \(result.after.map { $0 ?? "none" }.joined(separator: " and ")) instead of \(expected.rawValue)")
    }

    /// The path at both ends, when it has been the same for a while, or after a time.
    private func settledPath(_ walk: Walk) throws -> [String?] {
        var last = try paths(walk)
        var since = monotonicSeconds()
        let deadline = since + 3
        while monotonicSeconds() < deadline, monotonicSeconds() - since < 0.4 {
            usleep(50_000)
            let now = try paths(walk)
            if now != last { (last, since) = (now, monotonicSeconds()) }
        }
        return last
    }

    /// By which path each end that has an agent sends to the other.
    func paths(_ walk: Walk) throws -> [String?] {
        try [(walk.near, walk.far), (walk.far, walk.near)].compactMap { own, other in
            let host = try topology.host(own.host)
            guard host.daemon == "matd" else { return nil }
            // Of a host without MAT the agent knows only how its packets get there.
            if walk.setting == .gateway {
                return .some(try daemons.goesByGateway(host, to: other.address) ? Pattern.Path.gateway.rawValue : nil)
            }
            guard let report = try daemons.report(host) else { return .some(nil) }
            return .some(report.peers.first { $0.home == other.address }?.path?.rawValue)
        }
    }

    // MARK: What happens

    /// - Returns: since when the new state could carry traffic; `nil`: it never came.
    func carryOut(_ event: Pattern.Event, _ walk: Walk) throws -> Int64? {
        switch event {
        case .move(let places): return try withOverlap ? moveWithOverlap(places, walk) : move(places, walk)
        case .sequence(let events):
            var since: Int64?
            for event in events { since = try carryOut(event, walk) }
            return since
        case .restart(let host):
            let since = ProbeClock.now()
            try daemons.restart(host)
            return since
        case .setClock(let host, let seconds):
            let since = ProbeClock.now()
            try daemons.setClock(host, aheadBy: seconds)
            try awaitRegistration(walk.near.host == host ? walk.near : walk.far)
            return since
        case .reboot(let network, let newAddress):
            try Gateways(lab: lab).reboot(network, newAddress: newAddress)
            // What was sent before may have got through.
            return ProbeClock.now()
        }
    }

    /// All hosts leave where they are, and then come to the new places.
    private func move(_ places: [Pattern.Place], _ walk: Walk) throws -> Int64? {
        for place in places { try Gateways(lab: lab).build(topology.access(place.network).network) }
        let watches = try places.map { try AddressMoment(lab, $0.host, try device($0), try family($0, walk.near.isIPv4)) }
        for place in places { for device in topology.devices.map(\.device) { try networks.detach(place.host, device: device) } }
        try inParallel(places) { try networks.attach($0.host, $0.network, over: $0.device) }
        let moments = watches.map { $0.wait(seconds: 10) }
        return moments.contains { $0 == nil } ? nil : moments.compactMap { $0 }.max()
    }

    /// The new network comes, the agent goes there, and then the old one goes.
    private func moveWithOverlap(_ places: [Pattern.Place], _ walk: Walk) throws -> Int64? {
        let places = try places.map(onFreeInterface)
        for place in places { try Gateways(lab: lab).build(topology.access(place.network).network) }
        let watches = try places.map { try AddressMoment(lab, $0.host, try device($0), try family($0, walk.near.isIPv4)) }
        try inParallel(places) { try networks.attach($0.host, $0.network, over: $0.device) }
        let moments = watches.map { $0.wait(seconds: 10) }
        guard let since = moments.compactMap({ $0 }).max(), moments.allSatisfy({ $0 != nil }) else { return nil }
        for place in places { try awaitAddress(place) }
        let before = try targets(walk)
        for place in places { try daemons.handOver(try topology.host(place.host), to: try device(place)) }
        for place in places { try awaitMoved(place) }
        try awaitFollowed(places, walk, before)
        sleep(seconds: 0.5)
        for place in places {
            let own = try device(place)
            for device in topology.devices.map(\.device) where device != own { try networks.detach(place.host, device: device) }
        }
        return since
    }

    /// A network that is entered by the interface which is in use comes on the other one.
    private func onFreeInterface(_ place: Pattern.Place) throws -> Pattern.Place {
        let own = try device(place)
        guard try networks.isPlugged(place.host, over: own), let other = topology.devices.map(\.device).first(where: { $0 != own }) else {
            return place
        }
        return Pattern.Place(place.host, place.network, over: other)
    }

    private func device(_ place: Pattern.Place) throws -> String { try place.device ?? topology.access(place.network).access.device }

    /// Of the address that counts: the conversation's family, where the network has it.
    private func family(_ place: Pattern.Place, _ isIPv4: Bool) throws -> AddressFamily {
        let access = try topology.access(place.network).access
        return isIPv4 ? (access.pool == nil ? .ipv6 : .ipv4) : (access.advertised == nil ? .ipv4 : .ipv6)
    }

    /// The agent lists the new address.
    private func awaitAddress(_ place: Pattern.Place) throws {
        let (host, device) = (try topology.host(place.host), try device(place))
        try lab.wait("\(place.host) has an address on \(device)", seconds: 10) {
            try daemons.report(host)?.locators.contains { $0.interface == device } == true
        }
    }

    private func awaitMoved(_ place: Pattern.Place) throws {
        let (host, device) = (try topology.host(place.host), try device(place))
        let deadline = monotonicSeconds() + 5
        while monotonicSeconds() < deadline {
            if let report = try daemons.report(host), report.peers.allSatisfy({ $0.locator == nil || $0.interface == device }) { return }
            usleep(20_000)
        }
    }

    /// The other end sends elsewhere, too, and not just otherwise to the same address: so long both networks are there.
    private func awaitFollowed(_ places: [Pattern.Place], _ walk: Walk, _ before: [String: String?]) throws {
        let followers = [(walk.near, walk.far), (walk.far, walk.near)].filter { own, other in
            before[own.host] != nil && places.contains { $0.host == other.host }
        }.map(\.0.host)
        let deadline = monotonicSeconds() + 5
        while monotonicSeconds() < deadline {
            let now = try targets(walk)
            if followers.allSatisfy({ now[$0] != before[$0] }) { return }
            usleep(20_000)
        }
    }

    /// Where each end sends to, if it sends to the other already.
    private func targets(_ walk: Walk) throws -> [String: String?] {
        var targets: [String: String?] = [:]
        for (own, other) in [(walk.near, walk.far), (walk.far, walk.near)] {
            let host = try topology.host(own.host)
            guard host.daemon == "matd", let peer = try daemons.report(host)?.peers.first(where: { $0.home == other.address }) else { continue }
            targets[own.host] = .some(peer.locator.map(Self.address))
        }
        return targets
    }

    /// Of `2001:db8::1`, `[2001:db8::1]:6289`, `192.0.2.1` or `192.0.2.1:6289`.
    private static func address(_ locator: String) -> String {
        if locator.hasPrefix("[") { return String(locator.dropFirst().prefix { $0 != "]" }) }
        return locator.contains(".") ? String(locator.prefix { $0 != ":" }) : locator
    }

    // MARK: Starts

    /// Takes hosts to places where they are not yet.
    func takeToStart(_ places: [Pattern.Place], _ walk: Walk) throws {
        let moves = try places.filter { place in
            let network = try topology.access(place.network).network
            let plugged = try topology.devices.map(\.device).filter { try networks.isPlugged(place.host, over: $0) }
            // With overlap it may have come by the other interface.
            guard let only = plugged.first, plugged.count == 1, try withOverlap || only == device(place) else { return true }
            return try !networks.isAttached(place.host, network, over: only)
        }
        guard !moves.isEmpty else { return }
        _ = try withOverlap ? moveWithOverlap(moves, walk) : move(moves, walk)
    }

    /// Of the address that it talks by. Whoever is not reached all the same shows that later.
    func awaitRegistration(_ end: Walk.Ending) throws {
        let host = try topology.host(end.host)
        guard host.daemon == "matd" else { return }
        let deadline = monotonicSeconds() + 5
        while monotonicSeconds() < deadline {
            if try daemons.report(host)?.homes.contains(where: { $0.address == end.address && $0.state == "registered" }) == true { break }
            usleep(20_000)
        }
        // Its bindings follow.
        sleep(seconds: 0.3)
    }

    private func inParallel(_ places: [Pattern.Place], _ body: @escaping (Pattern.Place) throws -> Void) throws {
        let failure = Mutex<String?>(nil)
        let threads = places.map { place in
            JoinableThread {
                do { try body(place) } catch { failure.withLock { $0 = "\(error)" } }
            }
        }
        for thread in threads { thread.join() }
        if let failure = failure.withLock({ $0 }) { throw LabError(failure) }
    }

    private func sleep(seconds: Double) { usleep(useconds_t(seconds * 1e6)) }
    private static func milliseconds(_ nanoseconds: Int64) -> Double { Double(nanoseconds) / 1e6 }
}

/// When an address comes to an interface of a host, by the kernel's word.
private final class AddressMoment: Sendable {
    private struct State {
        var moment: Int64?
        var isOver = false
    }
    private final class Watch: Sendable {
        let state = Mutex(State())
    }

    private let watch = Watch()

    init(_ lab: Lab, _ host: String, _ device: String, _ family: AddressFamily) throws {
        let (watch, namespace) = (watch, lab.namespace(host))
        _ = JoinableThread {
            guard (try? Namespace.enter(namespace)) != nil else { return }
            try? AddressWatch.run(until: { watch.state.withLock { $0.isOver } }) { event in
                guard event.event == "address", event.interface == device, event.family == family else { return }
                watch.state.withLock { if $0.moment == nil { $0.moment = event.time } }
            }
        }
        // It listens by then.
        usleep(20_000)
    }

    deinit { watch.state.withLock { $0.isOver = true } }

    func wait(seconds: Double) -> Int64? {
        let deadline = monotonicSeconds() + seconds
        while monotonicSeconds() < deadline {
            if let moment = watch.state.withLock({ $0.moment }) { return moment }
            usleep(2_000)
        }
        return nil
    }
}
