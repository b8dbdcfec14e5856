import MATRuntime

/// What is collected from a burst of netlink events until somebody looks.
protocol NetlinkNews {
    init()
    var isEmpty: Bool { get }
    mutating func add(_ event: NetlinkIncoming)
    /// The kernel had to drop events (ENOBUFS): anything may have changed.
    mutating func addLoss()
}

/// Hears the events of netlink groups and says "look again", once for a burst: one DHCP lease makes several, a flushed ruleset
/// hundreds.
///
/// Events only wake and say where to look; the truth is always read from the kernel. So a lost event needs no care beyond looking
/// at everything. Events that our own requests caused are passed over: they are known.
final class NetlinkMonitor<News: NetlinkNews> {
    private let socket: NetlinkSocket
    private let loop: EventLoop
    private let name: String
    private let groups: [UInt32]
    private let ownPort: UInt32
    private let onNews: (News) -> Void
    private var news = News()
    private var announced = false

    /// - Parameter ownPort: the socket by which this process makes its own changes; 0 if every event counts.
    init(
        loop: EventLoop, protocol number: Int32, name: String, groups: [UInt32], ownPort: UInt32, onNews: @escaping (News) -> Void
    ) throws(KernelError) {
        self.loop = loop
        self.name = name
        self.groups = groups
        self.ownPort = ownPort
        self.onNews = onNews
        socket = try NetlinkSocket(protocol: number, name: name, groups: groups)
        do {
            try loop.watch(socket.descriptor) { [unowned self] in readable() }
        } catch {
            throw .system(error.operation, name, errno: error.errno)
        }
    }

    func stop() { loop.unwatch(socket.descriptor) }

    /// Hears nothing for a while: the kernel then makes no events, which for a transaction of 100,000 elements is much work saved.
    /// Whoever does this finds out by other means whether something was missed.
    func pause() { for group in groups { socket.listen(false, to: group) } }
    func resume() { for group in groups { socket.listen(true, to: group) } }

    /// As if the kernel had said that it dropped events.
    func assumeLoss() {
        news.addLoss()
        announce()
    }

    private func readable() {
        do {
            _ = try socket.drain(operation: "receive \(name)") { event in
                if event.port == 0 || event.port != ownPort { news.add(event) }
            }
        } catch {
            // Events were lost, or the socket is in a state that reading the whole again gets us out of.
            news.addLoss()
        }
        if !news.isEmpty { announce() }
    }

    private func announce() {
        guard !announced else { return }
        announced = true
        loop.schedule(after: .zero) { [weak self] in
            guard let self else { return }
            announced = false
            let heard = news
            news = News()
            onNews(heard)
        }
    }
}
