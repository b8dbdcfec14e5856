import IMTPlan
import MATRuntime

/// Hears what routers advertise of NAT64s, which the kernel does not keep, but hands on when it comes.
final class AdvertisementMonitor {
    private struct News: NetlinkNews {
        var translators: [(AdvertisedTranslator, interfaceIndex: UInt32)] = []
        var isEmpty: Bool { translators.isEmpty }
        /// More in one burst are passed over: each advertisement repeats them.
        static let countMax = 64

        mutating func add(_ event: NetlinkIncoming) {
            // struct nduseroptmsg: family 1, 1 free, length of the options 2, interface 4, ICMP type and code, 6 free; then the options.
            guard event.type == KernelValues.newUserOption, event.payload.count >= 16 else { return }
            let index = event.payload.loadUnaligned(fromByteOffset: 4, as: UInt32.self)
            let length = Int(event.payload.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
            let options = Array(event.payload.dropFirst(16).prefix(length))
            translators += AdvertisedTranslator.all(in: options).prefix(Self.countMax - translators.count).map { ($0, index) }
        }

        // What is lost comes again.
        mutating func addLoss() {}
    }

    private let monitor: NetlinkMonitor<News>

    init(loop: EventLoop, onNews: @escaping (AdvertisedTranslator, UInt32) -> Void) throws(KernelError) {
        monitor = try NetlinkMonitor(
            loop: loop, protocol: KernelValues.netlinkRoute, name: "router advertisements", groups: [KernelValues.groupUserOptions], ownPort: 0
        ) { news in
            for (translator, index) in news.translators { onNews(translator, index) }
        }
    }

    func stop() { monitor.stop() }
}
