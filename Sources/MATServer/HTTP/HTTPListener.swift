import Logging
import MATRuntime
import MATSignal

/// Where a daemon's metrics may be read: nowhere, or at one address, which a new configuration can change.
///
/// Belongs to the loop's thread: there the numbers are, and there a page is written too, since that takes well below a millisecond.
package final class MetricsListener {
    private let program: String
    private let loop: EventLoop
    private let families: () -> [MetricFamily]
    private var endpoint: MetricsEndpoint?
    /// As configured; port 0 lets the kernel choose.
    package private(set) var address: Endpoint?

    /// Where a page is, for people.
    package var url: String? { address.flatMap { address in endpoint.map { "http://\(Endpoint(address.address, port: $0.port))/metrics" } } }

    /// - Parameters:
    ///   - program: who says that it is too busy, when a page does not come in time.
    ///   - families: everything that is counted, as of now.
    package init(program: String, loop: EventLoop, families: @escaping () -> [MetricFamily]) {
        self.program = program
        self.loop = loop
        self.families = families
    }

    /// Listens there, if that is elsewhere than now. If it can't, everything stays as it was.
    package func change(to address: Endpoint?, _ logger: Logger) throws(MetricsEndpointError) {
        guard address != self.address else { return }
        var fresh: MetricsEndpoint?
        if let address {
            let reference = Reference(self)
            let poster = loop.poster
            fresh = try MetricsEndpoint(address: address, program: program) { respond in
                poster.post {
                    guard let listener = reference.value else { return }
                    respond(MetricText.write(listener.families()))
                }
            }
        }
        endpoint?.stop()
        endpoint = fresh
        self.address = address
        if let url { logger.notice("metrics at \(url)") }
    }

    /// Closes everything. Blocks for moments.
    package func stop() {
        endpoint?.stop()
        endpoint = nil
        address = nil
    }

    /// Followed in the loop's thread only.
    private final class Reference: @unchecked Sendable {
        weak var value: MetricsListener?
        init(_ value: MetricsListener) { self.value = value }
    }
}
