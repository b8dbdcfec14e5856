import Foundation
import Glibc
import IMTKernel
import IMTPlan
import MATRuntime
import MATSignal
import Namespaces

/// A host in a namespace that runs the product's kernel side in a thread and event loop of its own, and in place of the agent
/// does what the test says.
final class Host: @unchecked Sendable {
    let namespace: Namespace
    private var thread: JoinableThread?
    private var poster: Poster?
    // Both belong to the loop's thread.
    private var loop: EventLoop?
    private var kernel: IMTKernel?
    private let lock = NSLock()
    private var outboundHeld: [HeldPacket] = []
    private var inboundHeld: [HeldPacket] = []
    private var encapsulatedHeld: [(packet: HeldPacket, from: Endpoint, to: Endpoint)] = []
    private var errors: [DatagramError] = []
    private var inPath: [InPathMessage] = []
    /// How often a packet to a peer was told of.
    private var uses = 0
    private var resetsHeld: [(from: IPAddress, to: IPAddress)] = []
    private var problems: [String] = []
    private var repairs: [String] = []
    private var notices: [String] = []
    private var links: LinkSnapshot?
    /// What the agent does at once, in the loop's thread, when links change.
    var onLinks: ((IMTKernel, LinkSnapshot) -> Void)?

    init(_ namespace: Namespace) { self.namespace = namespace }

    @discardableResult
    func start(_ configuration: IMTConfiguration) throws -> AdoptedState {
        let started = DispatchSemaphore(value: 0)
        nonisolated(unsafe) var outcome: Result<AdoptedState, any Error>?
        let name = namespace.name
        var configuration = configuration
        // The same tests with the other data plane: MAT_TEST_DATA_PLANE=bpf.
        if let plane = ProcessInfo.processInfo.environment["MAT_TEST_DATA_PLANE"].flatMap({ DataPlane(rawValue: $0) }) {
            configuration.dataPlane = plane
        }
        thread = JoinableThread { [self, configuration] in
            do {
                try Namespace.enter(name)
                let loop = try EventLoop()
                let kernel = try IMTKernel(loop: loop, configuration: configuration) { [unowned self] in happened($0) }
                outcome = .success(try kernel.start())
                self.loop = loop
                self.kernel = kernel
                poster = loop.poster
                started.signal()
                try loop.run()
            } catch {
                outcome = .failure(error)
                started.signal()
            }
            self.kernel = nil
            self.loop = nil
        }
        started.wait()
        guard let outcome else { throw ShellError("no outcome") }
        do { return try outcome.get() } catch {
            thread?.join()
            thread = nil
            throw error
        }
    }

    private func happened(_ event: KernelEvent) {
        if case .links(let snapshot) = event, let kernel { onLinks?(kernel, snapshot) }
        lock.lock()
        defer { lock.unlock() }
        switch event {
        case .heldOutbound(let packet): outboundHeld.append(packet)
        case .heldInbound(let packets): inboundHeld += packets
        case .resetHeld(let source, let own): resetsHeld.append((source, own))
        case .heldEncapsulated(let packet, let from, let to): encapsulatedHeld.append((packet, from, to))
        case .datagramError(let error): errors.append(error)
        case .inPath(let message): inPath.append(message)
        case .used: uses += 1
        case .gatewayArrival, .programs: break
        case .failed(let error): problems.append(error.description)
        case .repaired(let text): repairs.append(text)
        case .warning(let text): notices.append(text)
        case .links(let snapshot): links = snapshot
        case .translator: break
        }
    }

    /// Runs `body` with the kernel in its thread.
    @discardableResult
    func ask<T>(_ body: @escaping (IMTKernel) throws -> T) throws -> T {
        guard let poster else { throw ShellError("not started") }
        let done = DispatchSemaphore(value: 0)
        nonisolated(unsafe) var result: Result<T, any Error>?
        nonisolated(unsafe) let work = body
        poster.post { [self] in
            if let kernel { result = Result { try work(kernel) } }
            done.signal()
        }
        done.wait()
        guard let result else { throw ShellError("the kernel side is gone") }
        return try result.get()
    }

    /// Ends the thread: by a clean stop, or by letting go as a killed process does.
    func finish(leaving: Bool) {
        _ = try? ask { [self] kernel in
            if leaving { kernel.leave() } else { try kernel.stop() }
            loop?.stop()
        }
        thread?.join()
        thread = nil
        poster = nil
    }

    private func locked<T>(_ body: () -> T) -> T {
        lock.lock()
        defer { lock.unlock() }
        return body()
    }

    var failures: [String] { locked { problems } }
    var repaired: [String] { locked { repairs } }
    var warnings: [String] { locked { notices } }
    var usesTold: Int { locked { uses } }
    var lastLinks: LinkSnapshot? { locked { links } }
    func takeResets() -> [(from: IPAddress, to: IPAddress)] {
        locked {
            defer { resetsHeld = [] }
            return resetsHeld
        }
    }
    func takeOutbound() -> [HeldPacket] {
        locked {
            defer { outboundHeld = [] }
            return outboundHeld
        }
    }
    func takeEncapsulated() -> [(packet: HeldPacket, from: Endpoint, to: Endpoint)] {
        locked {
            defer { encapsulatedHeld = [] }
            return encapsulatedHeld
        }
    }
    var datagramErrors: [DatagramError] { locked { errors } }

    /// Messages that came within paths since the last call.
    func takeInPath() -> [InPathMessage] {
        locked {
            defer { inPath = [] }
            return inPath
        }
    }
    func takeInbound() -> [HeldPacket] {
        locked {
            defer { inboundHeld = [] }
            return inboundHeld
        }
    }

    /// Everything of the host that an agent could have touched.
    func picture() throws -> String {
        try [
            "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all", "ip -br addr", "ip -br link",
            "nft list ruleset",
        ].map { try namespace.run($0) }.joined(separator: "--\n")
    }

    // MARK: In place of the agent

    /// Makes every usable address on these links a MoA of the HoA of its family.
    func useLocators(on interfaces: String...) throws { try useLocators(on: interfaces) }

    func useLocators(on interfaces: [String]) throws {
        try ask { kernel in
            let locators = try kernel.currentLinks().usable.filter { interfaces.contains($0.interface) }
            try kernel.setOwnLocators(locators)
            try kernel.commit(
                locators.compactMap { locator in
                    let home = kernel.configuration.homeAddresses.first { $0.isIPv4 == locator.address.isIPv4 }
                    return home.map { .setOwn(MobileAddress(locator.address), $0) }
                })
        }
    }

    /// Peer HoA and MoA as text; out and in.
    func map(_ own: String, _ peer: String, over ownMoA: String, _ peerMoA: String, inbound: [(String, String)] = []) throws {
        let home = HomePair(own: HomeAddress(try address(own)), peer: HomeAddress(try address(peer)))
        let mobile = MobilePair(own: MobileAddress(try address(ownMoA)), peer: MobileAddress(try address(peerMoA)))
        var changes: [IMTChange] = [.setOutbound(home, .rewritten(mobile)), .setOwn(mobile.own, home.own), .setInbound(peer: mobile.peer, home)]
        for (other, peerOther) in inbound {
            changes.append(.setOwn(MobileAddress(try address(other)), home.own))
            changes.append(.setInbound(peer: MobileAddress(try address(peerOther)), home))
        }
        let batch = changes
        try ask { try $0.commit(batch) }
    }
}

func address(_ text: String) throws -> IPAddress {
    guard let address = IPAddress(text) else { throw ShellError("\(text) is no address") }
    return address
}

/// Waits until `condition` holds, looking every 5 ms.
func eventually(within seconds: Double = 3, _ condition: () throws -> Bool) rethrows -> Bool {
    let end = Date().addingTimeInterval(seconds)
    while Date() < end {
        if try condition() { return true }
        usleep(5000)
    }
    return try condition()
}
