import Metrics

/// Shows what somebody else counts: read when somebody asks for the metrics, so that counting costs the path of a datagram nothing more.
package final class MetricsMirror {
    private struct Key: Hashable {
        var name: String
        var labels: [String]
    }

    private let registry: MetricsRegistry
    private var counters: [Key: (counter: Counter, told: UInt64)] = [:]
    private var gauges: [Key: Gauge] = [:]

    package init(_ registry: MetricsRegistry) { self.registry = registry }

    /// A counter that shows a total. One that went back, as after a restart of its keeper, begins again.
    package func set(_ name: String, _ total: UInt64, _ labels: [(String, String)] = []) {
        let key = Key(name: name, labels: labels.map(\.1))
        var mirror = counters[key] ?? (Counter(label: name, dimensions: labels, factory: registry), 0)
        if total > mirror.told { mirror.counter.increment(by: Int64(clamping: total - mirror.told)) }
        mirror.told = total
        counters[key] = mirror
    }

    package func level(_ name: String, _ value: some BinaryInteger, _ labels: [(String, String)] = []) {
        level(name, Double(value), labels)
    }

    package func level(_ name: String, _ value: Double, _ labels: [(String, String)] = []) {
        let key = Key(name: name, labels: labels.map(\.1))
        let gauge = gauges[key] ?? Gauge(label: name, dimensions: labels, factory: registry)
        gauges[key] = gauge
        gauge.record(value)
    }

    /// What the kernel says of this process.
    package func process() {
        let process = ProcessFigures.now()
        level("process_resident_memory_bytes", process.residentOctets)
        level("process_virtual_memory_bytes", process.virtualOctets)
        level("process_open_fds", process.openDescriptors)
        level("process_start_time_seconds", process.startedAt)
        level("process_threads", process.threads)
        set("process_cpu_seconds_total", process.cpuSeconds)
    }

    /// Names and meanings of `process`, as manuals list them.
    package static let processTexts: [(String, String)] = [
        ("process_resident_memory_bytes", "Resident memory."),
        ("process_virtual_memory_bytes", "Virtual memory."),
        ("process_open_fds", "Open file descriptors."),
        ("process_threads", "Threads."),
        ("process_start_time_seconds", "Start of the process in Unix time."),
        ("process_cpu_seconds_total", "Processor time, user and system."),
    ]
}
