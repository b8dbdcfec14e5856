import MATRuntime
import MATServer
import MATSignal

// Who may read the metrics: Prometheus over HTTP, and people over the control socket.

extension IMSServer {
    /// Everything that is counted, as of now.
    func metricFamilies() -> [MetricFamily] {
        metrics.collect(self, SystemClock.now())
        return metrics.registry.families()
    }

    /// Listens where the configuration says, if that is elsewhere than now.
    func changeMetricsEndpoint(to address: Endpoint?) throws(IMSServerError) {
        guard address != metricsListening else { return }
        var fresh: MetricsEndpoint?
        if let address {
            let reference = UncheckedReference(self)
            let poster = loop.poster
            do throws(MetricsEndpointError) {
                fresh = try MetricsEndpoint(address: address, program: "imsd") { respond in
                    poster.post {
                        guard let server = reference.value else { return }
                        // Taken in the loop's thread, where the numbers are; written in that thread too, since a page takes well below a millisecond.
                        respond(MetricText.write(server.metricFamilies()))
                    }
                }
            } catch {
                throw IMSServerError("\(error)")
            }
        }
        metricsEndpoint?.stop()
        metricsEndpoint = fresh
        metricsListening = address
        if let fresh, let address { logger.notice("metrics at http://\(Endpoint(address.address, port: fresh.port))/metrics") }
    }
}
