import Dispatch
import IMS
import IMSCore
import MATSignal
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization

import enum MATRuntime.SystemClock

/// A store that several instances of one IMS share: an etcd cluster. The shell around `ClusterInstance`: one thread with the
/// connection, timers, and what comes in from the server's loop. It decides nothing.
public final class EtcdStore: MappingSharing {
    static let tickInterval = TimeAmount.milliseconds(50)
    /// How long `close` waits for what is being written.
    static let closeTimeMax: Duration = .seconds(3)

    public let place: String
    public let freshness = Freshness()
    private let group: MultiThreadedEventLoopGroup
    private let loop: any EventLoop
    private let worker: Worker

    /// Reads the certificates and keys that the configuration names. Connects later.
    public init(_ configuration: EtcdConfiguration) throws(StoreError) {
        let tls = try configuration.tlsContext()
        let password = try configuration.password()
        place = "etcd at " + configuration.endpoints.map(\.description).joined(separator: ", ")
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        loop = group.next()
        let settings = ClusterInstance.Settings(
            keys: ClusterKeys(prefix: configuration.prefix), id: InstanceID(number: .random(in: .min ... .max)),
            membersCount: configuration.endpoints.count,
            login: configuration.user.map { ($0, password ?? "") })
        worker = Worker(settings, configuration, tls, freshness, loop)
    }

    public func start(_ deliver: @escaping @Sendable (StoreEvent) -> Void) {
        loop.execute { [worker] in worker.start(deliver) }
    }

    public func commit(_ ticket: StoreTicket, _ change: StoreChange) { worker.hand(.commit(ticket, change)) }
    public func write(_ secret: CookieSecret) { worker.hand(.secret(secret)) }
    public func share(_ news: [SharedNews]) { worker.hand(.share(news)) }
    public func serve() { worker.hand(.serve) }
    public func leave() { worker.hand(.leave) }

    public func close() {
        // A second call, or what a server still hands over, finds no thread any more.
        guard worker.retire() else { return }
        let done = DispatchSemaphore(value: 0)
        loop.execute { [worker] in worker.close { done.signal() } }
        _ = done.wait(timeout: .now() + .seconds(Int(Self.closeTimeMax.components.seconds) + 1))
        try? group.syncShutdownGracefully()
    }

    /// What the server hands over.
    fileprivate enum Handed: Sendable {
        case commit(StoreTicket, StoreChange)
        case secret(CookieSecret)
        case share([SharedNews])
        case serve
        case leave
    }

    /// All but `hand` runs in the event loop's thread.
    fileprivate final class Worker: @unchecked Sendable {
        private let loop: any EventLoop
        private let configuration: EtcdConfiguration
        private let tls: NIOSSLContext?
        private let freshness: Freshness
        private let handed = Mutex<[Handed]>([])
        private let isRetired = Atomic(false)
        private var instance: ClusterInstance
        private var deliver: @Sendable (StoreEvent) -> Void = { _ in }
        private var connection: EtcdConnection?
        private var watch: EtcdCall?
        private var ticks: RepeatedTask?
        private var token: String?
        private var whenClosed: (() -> Void)?
        private var closeBy: MonotonicTime?
        /// Tells a connection that comes too late from the one that is waited for.
        private var attempt = 0
        private var isConnecting = false

        init(
            _ settings: ClusterInstance.Settings, _ configuration: EtcdConfiguration, _ tls: NIOSSLContext?,
            _ freshness: Freshness,
            _ loop: any EventLoop
        ) {
            self.loop = loop
            self.freshness = freshness
            self.configuration = configuration
            self.tls = tls
            instance = ClusterInstance(settings, now: SystemClock.now())
        }

        // MARK: From the server

        /// Takes nothing more.
        ///
        /// - Returns: whether this was the first call.
        func retire() -> Bool { handed.withLock { _ in !isRetired.exchange(true, ordering: .relaxed) } }

        func hand(_ item: Handed) {
            let isFirst = handed.withLock { items in
                guard !isRetired.load(ordering: .relaxed) else { return false }
                items.append(item)
                return items.count == 1
            }
            // A burst costs one wake-up.
            if isFirst { loop.execute { self.performHanded() } }
        }

        private func performHanded() {
            let items = handed.withLock { items in
                defer { items = [] }
                return items
            }
            let now = SystemClock.now()
            var commits: [(StoreTicket, StoreChange)] = []
            for item in items {
                switch item {
                case .commit(let ticket, let change): commits.append((ticket, change))
                case .secret(let secret): perform(instance.write(secret, now))
                case .share(let news): perform(instance.share(news, now))
                case .serve: instance.serves = true
                case .leave: perform(instance.leave(now))
                }
            }
            if !commits.isEmpty { perform(instance.commit(commits, now)) }
        }

        func start(_ deliver: @escaping @Sendable (StoreEvent) -> Void) {
            self.deliver = deliver
            perform(instance.tick(SystemClock.now()))
            ticks = loop.scheduleRepeatedTask(initialDelay: EtcdStore.tickInterval, delay: EtcdStore.tickInterval) {
                [weak self] _ in
                self?.tick()
            }
        }

        private func tick() {
            let now = SystemClock.now()
            perform(instance.tick(now))
            if let closeBy, (instance.isIdle && !isConnecting) || closeBy <= now.monotonic { finishClosing() }
        }

        func close(_ done: @escaping @Sendable () -> Void) {
            let now = SystemClock.now()
            closeBy = now.monotonic + EtcdStore.closeTimeMax
            whenClosed = done
            performHanded()
            perform(instance.close(now))
        }

        private func finishClosing() {
            guard let done = whenClosed else { return }
            whenClosed = nil
            deliver = { _ in }
            ticks?.cancel()
            disconnect()
            done()
        }

        // MARK: Actions

        private func perform(_ actions: [ClusterInstance.Action]) {
            for action in actions {
                switch action {
                case .connect(let index): connect(index)
                case .disconnect: disconnect()
                case .useToken(let token):
                    self.token = token
                    connection?.token = token
                case .call(let id, let request, let time):
                    connection?.ask(request, within: .nanoseconds(time.nanosecondsSaturated)) { [weak self] result in
                        guard let self else { return }
                        perform(instance.answered(id, result, SystemClock.now()))
                    }
                case .watch(let watch): follow(watch)
                case .answer(let until): freshness.extend(to: until)
                case .withholdAnswers(let number): freshness.withhold(number)
                case .deliver(let event): deliver(event)
                }
            }
        }

        private func connect(_ index: Int) {
            guard index < configuration.endpoints.count else { return }
            let endpoint = configuration.endpoints[index]
            attempt += 1
            isConnecting = true
            let attempt = attempt
            let connected = EtcdConnection.connect(to: endpoint, tls: tls, serverName: configuration.serverName, on: loop)
            connected.whenComplete { [weak self] result in
                self?.isConnecting = false
                guard let self, attempt == self.attempt else {
                    if case .success(let late) = result { late.close() }
                    return
                }
                switch result {
                case .success(let connection):
                    self.connection = connection
                    connection.onClose = { [weak self] reason in
                        guard let self, attempt == self.attempt else { return }
                        self.connection = nil
                        watch = nil
                        perform(instance.disconnected(reason, isInTouch: true, SystemClock.now()))
                    }
                    perform(instance.connected(SystemClock.now()))
                case .failure(let error):
                    let isInTouch = EtcdConnection.isRefusal(error)
                    perform(instance.disconnected("\(endpoint) can't be reached: \(error)", isInTouch: isInTouch, SystemClock.now()))
                }
            }
        }

        private func disconnect() {
            attempt += 1
            watch?.cancel()
            watch = nil
            connection?.close()
            connection = nil
        }

        private func follow(_ watch: EtcdWatch) {
            let attempt = attempt
            self.watch?.cancel()
            self.watch = connection?.watch(
                watch,
                onResponse: { [weak self] response in
                    guard let self, attempt == self.attempt else { return }
                    perform(instance.watched(response, SystemClock.now()))
                },
                onEnd: { [weak self] error in
                    guard let self, attempt == self.attempt else { return }
                    self.watch = nil
                    perform(instance.watchEnded(error, SystemClock.now()))
                })
        }
    }
}
