import Logging
import MATRuntime
import MATSignal

/// Where something of a daemon may be read over HTTP: nowhere, or at one address, which a new configuration can change.
///
/// Belongs to the loop's thread, where the numbers are.
package final class HTTPListener {
    /// What the loop's thread gives for a page: the numbers as of now. They are written down in the HTTP server's thread.
    package typealias Source = () -> @Sendable () -> String

    private let site: HTTPSite
    /// What the log calls it, with its address behind.
    private let title: String
    private var endpoint: HTTPEndpoint?
    /// As configured; port 0 lets the kernel choose.
    package private(set) var address: Endpoint?

    init(title: String, _ site: HTTPSite) {
        self.title = title
        self.site = site
    }

    /// Where a person finds it, under a path.
    package func url(_ path: String) -> String? {
        address.flatMap { address in endpoint.map { "http://\(Endpoint(address.address, port: $0.port))\(path)" } }
    }

    /// An address that is listened at, and not in use yet. Forgotten, it is given up.
    package final class Change {
        fileprivate let address: Endpoint?
        fileprivate var endpoint: HTTPEndpoint?

        fileprivate init(_ address: Endpoint?, _ endpoint: HTTPEndpoint?) { (self.address, self.endpoint) = (address, endpoint) }

        deinit { endpoint?.stop() }
    }

    /// Listens there, if that is elsewhere than now; nothing else changes before `take`.
    package func prepare(_ address: Endpoint?) throws(HTTPEndpointError) -> Change? {
        guard address != self.address else { return nil }
        return Change(address, try address.map { address throws(HTTPEndpointError) in try HTTPEndpoint(address: address, site) })
    }

    package func take(_ change: Change?, _ logger: Logger) {
        guard let change else { return }
        endpoint?.stop()
        (endpoint, address) = (change.endpoint, change.address)
        change.endpoint = nil
        if let url = url(path) { logger.notice("\(title) at \(url)") }
    }

    package func change(to address: Endpoint?, _ logger: Logger) throws(HTTPEndpointError) { take(try prepare(address), logger) }

    /// Closes everything. Blocks for moments.
    package func stop() {
        endpoint?.stop()
        (endpoint, address) = (nil, nil)
    }

    /// Where people begin to read.
    private var path: String { site.resources["/"] == nil ? "/metrics" : "/" }

    /// A page whose numbers are taken in the loop's thread.
    static func page(_ loop: EventLoop, _ source: @escaping Source) -> HTTPResource.Page {
        let reference = UncheckedSource(source)
        let poster = loop.poster
        return { respond in poster.post { respond(reference.source()) } }
    }

    /// Called in the loop's thread only.
    private final class UncheckedSource: @unchecked Sendable {
        let source: Source
        init(_ source: @escaping Source) { self.source = source }
    }
}

extension HTTPListener {
    /// Metrics for Prometheus.
    ///
    /// - Parameters:
    ///   - program: who says that it is too busy, when a page does not come in time.
    ///   - families: everything that is counted, as of now.
    package static func metrics(of program: String, _ loop: EventLoop, _ families: @escaping () -> [MetricFamily]) -> HTTPListener {
        let page = page(loop) {
            let families = families()
            return { MetricText.write(families) }
        }
        return HTTPListener(
            title: "metrics",
            HTTPSite(program: program, section: "metrics", resources: ["/metrics": .page(type: MetricText.contentType, page)]))
    }
}
