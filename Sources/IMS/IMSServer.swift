import Logging
import MATDNS
import MATRuntime
import MATSignal

/// The shell around `IMSCore`: socket, DNS, store, timers, control socket. It decides nothing; it tells the core what happened
/// and does what the core says.
public final class IMSServer {
    /// How long one cookie secret makes cookies. Two are valid at a time, so a cookie lives out its hour in any case.
    static let cookieSecretAge: Duration = .seconds(86_400)
    /// How soon a failed rotation is tried again.
    static let cookieSecretRetry: Duration = .seconds(60)

    let configuration: IMSConfiguration
    let loop: EventLoop
    let logger: Logger
    let started = SystemClock.now().monotonic
    var core: IMSCore
    private let store: MappingStore
    private let resolver: Resolver
    private let lookup: IMSLookup
    private var sockets: [(address: IPAddress?, socket: UDPSocket)] = []
    private var control: ControlServer?
    private var wakeup: (time: MonotonicTime, timer: TimerID)?
    /// Enrolments whose certificate is given out once it is durable.
    var enrolments: [StoreTicket: (String?) -> Void] = [:]
    private var sendFailures: UInt64 = 0
    private(set) var storeFailure: String?

    /// Reads key and store. Nothing is answered before `start`.
    public init(configuration: IMSConfiguration, loop: EventLoop, logger: Logger) throws(IMSServerError) {
        self.configuration = configuration
        self.loop = loop
        self.logger = logger
        let key = try configuration.signingKey()
        let contents: StoreContents
        let now = SystemClock.now()
        var secrets: [CookieSecret]
        do throws(StoreError) {
            (store, contents) = try MappingStore.open(path: configuration.storePath)
            secrets = contents.cookieSecrets
            // A secret from the future would never be rotated, one too old should have been.
            if secrets.first.map({ $0.madeAt > now.wallMilliseconds || now.wallMilliseconds - $0.madeAt > Self.ageMilliseconds }) ?? true {
                let secret = CookieSecret(octets: Self.randomOctets(), madeAt: max(now.wallMilliseconds, (secrets.first?.madeAt ?? 0) + 1))
                try store.write(secret)
                secrets.insert(secret, at: 0)
            }
        } catch {
            throw IMSServerError(error.description)
        }
        for name in contents.unreadable { logger.error("the store holds something unreadable about \(name); it is not served") }
        let coreConfiguration = IMSCoreConfiguration(
            served: configuration.served, publicKeys: configuration.publicKeys, signingKey: key,
            certificateLifetime: configuration.certificateLifetime, limits: configuration.limits, draftSources: configuration.draftSources)
        guard
            var core = IMSCore(
                coreConfiguration, cookieSecrets: secrets.map(\.octets), clientSecret: Self.randomOctets(),
                random: SystemRandomNumberGenerator())
        else { throw IMSServerError("no usable cookie secret in \(configuration.storePath)") }
        core.load(mappings: contents.mappings, issued: contents.issued)
        self.core = core

        var dns = configuration.resolvers.isEmpty ? ResolverConfiguration.system() : ResolverConfiguration(servers: configuration.resolvers)
        dns.requireDNSSEC = configuration.requireDNSSEC
        dns.totalTimeout = configuration.dnsTimeout
        resolver = Resolver(loop: loop, configuration: dns)
        lookup = IMSLookup(resolver: resolver)
    }

    private static var ageMilliseconds: UInt64 { UInt64(cookieSecretAge.components.seconds) * 1000 }
    private static func randomOctets() -> [UInt8] { (0..<16).map { _ in UInt8.random(in: .min ... .max) } }

    // MARK: Life

    public func start() throws(IMSServerError) {
        do throws(ControlError) {
            control = try ControlServer(loop: loop, path: configuration.controlPath, allowedGroup: configuration.controlGroup) {
                [unowned self] request, respond in
                answer(request, respond)
            }
        } catch {
            throw IMSServerError("\(error)")
        }
        do throws(SystemError) {
            for address in configuration.addresses.isEmpty ? [nil] : configuration.addresses.map(Optional.some) {
                let socket = try UDPSocket(loop: loop, port: configuration.port, address: address) { [unowned self] octets, source, local in
                    let datagram = Array(octets)
                    run { core, now in core.received(datagram, from: source, to: local, now: now) }
                }
                sockets.append((address, socket))
            }
        } catch {
            throw IMSServerError("\(error); is another imsd running?")
        }
        rotateCookiesLater(after: Self.cookieSecretAge)
        logger.notice(
            "imsd is up",
            metadata: [
                "port": "\(configuration.port)", "prefixes": "\(configuration.served.map(\.prefix.description).joined(separator: " "))",
                "mappings": "\(core.mappingsCount)",
            ])
    }

    /// Ends service. What was acknowledged is durable already.
    public func stop() {
        control?.stop()
        control = nil
        sockets = []
        store.close()
        loop.stop()
    }

    /// Takes prefixes and draft sources from the file anew; the rest needs a restart.
    public func reload(path: String) {
        do throws(ConfigurationError) {
            let fresh = try IMSConfiguration(path: path)
            core.reconfigure(served: fresh.served, draftSources: fresh.draftSources)
            logger.notice("prefixes reloaded", metadata: ["prefixes": "\(fresh.served.map(\.prefix.description).joined(separator: " "))"])
        } catch {
            logger.error("the configuration is not reloaded:\n\(error)")
        }
    }

    // MARK: Events and actions

    func run(_ event: (inout IMSCore, Now) -> [IMSAction]) {
        perform(event(&core, SystemClock.now()))
        scheduleWakeup()
    }

    func perform(_ actions: [IMSAction]) {
        for action in actions {
            switch action {
            case .send(let octets, let local, let peer):
                send(octets, from: local, to: peer)
            case .lookUp(let name):
                let reference = UncheckedReference(self)
                let poster = loop.poster
                // Posted, since a cached answer comes before the look-up call returns, while the core's actions are being done.
                let completion: (IMSLookupResult) -> Void = { result in
                    poster.post { reference.value?.run { core, now in core.resolved(name, result, now: now) } }
                }
                if name.length == 128 {
                    lookup.lookup(HomeAddress(name.address), completion: completion)
                } else {
                    lookup.lookup(prefix: name, completion: completion)
                }
            case .commit(let ticket, let change):
                let reference = UncheckedReference(self)
                store.commit(ticket, change, via: loop.poster) { ticket, failure in reference.value?.committed(ticket, failure) }
            case .log(let level, let message):
                logger.log(level: Logger.Level(rawValue: level.rawValue) ?? .info, "\(message)")
            }
        }
    }

    /// Carries the server through closures that run in the loop's thread but have to be Sendable to get there.
    private final class UncheckedReference: @unchecked Sendable {
        weak var value: IMSServer?
        init(_ value: IMSServer?) { self.value = value }
    }

    private func committed(_ ticket: StoreTicket, _ failure: String?) {
        storeFailure = failure
        run { core, now in core.stored(ticket, failure: failure, now: now) }
        enrolments.removeValue(forKey: ticket)?(failure)
    }

    private func send(_ octets: [UInt8], from local: IPAddress?, to peer: Endpoint) {
        let socket = sockets.first { $0.address == local } ?? sockets.first { $0.address.map { $0.isIPv4 == peer.address.isIPv4 } ?? true }
        guard let failure = socket?.socket.send(octets, from: local, to: peer) else { return }
        // The other side retransmits; what matters is that somebody can see why it has to.
        sendFailures += 1
        logger.debug("\(failure)")
    }

    private func scheduleWakeup() {
        guard let next = core.nextDeadline else { return }
        if let wakeup {
            guard next < wakeup.time else { return }
            loop.cancel(wakeup.timer)
        }
        wakeup = (
            next,
            loop.schedule(at: next) { [weak self] in
                guard let self else { return }
                wakeup = nil
                run { core, now in core.timerFired(now: now) }
            }
        )
    }

    private func rotateCookiesLater(after delay: Duration) {
        loop.schedule(after: delay) { [weak self] in
            guard let self else { return }
            let secret = CookieSecret(octets: Self.randomOctets(), madeAt: SystemClock.now().wallMilliseconds)
            do throws(StoreError) {
                // Durable first: a cookie made with a secret that a restart loses would be refused.
                try store.write(secret)
                core.rotateCookies(to: secret.octets)
                rotateCookiesLater(after: Self.cookieSecretAge)
            } catch {
                logger.error("the cookie secret is not rotated: \(error)")
                rotateCookiesLater(after: Self.cookieSecretRetry)
            }
        }
    }

    var sendFailuresCount: UInt64 { sendFailures }
}
