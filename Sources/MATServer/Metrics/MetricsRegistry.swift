import Metrics
import Synchronization

/// What swift-metrics counts into, and what Prometheus reads: a back end for `MetricsSystem.bootstrap`.
///
/// Names and labels are those given to `Counter`, `Gauge`, `Recorder` and `Timer`; the text that explains them, and the bounds of a
/// histogram's buckets, are told once by `describe`. Timers are shown in seconds. Every instrument may be used in any thread; a
/// counter costs one atomic addition, the others a short lock of their own.
public final class MetricsRegistry: MetricsFactory, Sendable {
    /// Series in all. Labels take few values, so more is a mistake; further series are counted, but nowhere.
    static let seriesMax = 10_000

    /// Labels and their values, in the order in which they are shown.
    typealias Labels = [MetricLabel]

    fileprivate enum Series {
        case counter(CounterSeries)
        case gauge(GaugeSeries)
        case histogram(HistogramSeries)
    }

    private struct Description {
        var help: String
        var bounds: [Double]
    }

    private struct State {
        var descriptions: [String: Description] = [:]
        var families: [String: [Labels: Series]] = [:]
        var seriesCount = 0
    }

    private let state = Mutex(State())

    public init() {}

    /// Says what a metric means and, for a histogram, where its buckets end. Before the instrument is made.
    ///
    /// - Parameter bounds: growing; the last bucket, without an end, is added.
    public func describe(_ name: String, _ help: String, bounds: [Double] = HistogramSeries.secondsBounds) {
        state.withLock { $0.descriptions[name] = Description(help: help, bounds: bounds) }
    }

    // MARK: MetricsFactory

    public func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler {
        series(label, dimensions, make: { _ in .counter(CounterSeries()) }) { if case .counter(let found) = $0 { found } else { nil } }
            ?? CounterSeries()
    }

    public func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler { gauge(label, dimensions) }

    public func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
        // `Gauge` of swift-metrics is a recorder that does not aggregate.
        aggregate ? histogram(label, dimensions) : gauge(label, dimensions)
    }

    public func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler { histogram(label, dimensions) }

    public func destroyCounter(_ handler: any CounterHandler) { remove(handler) }
    public func destroyMeter(_ handler: any MeterHandler) { remove(handler) }
    public func destroyRecorder(_ handler: any RecorderHandler) { remove(handler) }
    public func destroyTimer(_ handler: any TimerHandler) { remove(handler) }

    private func gauge(_ label: String, _ dimensions: [(String, String)]) -> GaugeSeries {
        series(label, dimensions, make: { _ in .gauge(GaugeSeries()) }) { if case .gauge(let found) = $0 { found } else { nil } }
            ?? GaugeSeries()
    }

    private func histogram(_ label: String, _ dimensions: [(String, String)]) -> HistogramSeries {
        series(label, dimensions, make: { .histogram(HistogramSeries(bounds: $0)) }) {
            if case .histogram(let found) = $0 { found } else { nil }
        } ?? HistogramSeries(bounds: HistogramSeries.secondsBounds)
    }

    /// The series of this name and these labels. One of another kind, or one too many, makes the instrument count for nobody: a
    /// mistake in the program is no reason to end it.
    private func series<Handler>(
        _ label: String, _ dimensions: [(String, String)], make: ([Double]) -> Series, _ as: (Series) -> Handler?
    ) -> Handler? {
        let name = MetricText.name(label)
        let labels = dimensions.map { MetricLabel(name: MetricText.name($0.0), value: $0.1) }
        return state.withLock { state in
            if let found = state.families[name]?[labels] { return `as`(found) }
            guard state.seriesCount < Self.seriesMax else { return nil }
            let made = make(state.descriptions[name]?.bounds ?? HistogramSeries.secondsBounds)
            // All series of a name are of one kind.
            if let other = state.families[name]?.values.first, !Self.isSameKind(other, made) { return nil }
            state.families[name, default: [:]][labels] = made
            state.seriesCount += 1
            return `as`(made)
        }
    }

    private static func isSameKind(_ a: Series, _ b: Series) -> Bool {
        switch (a, b) {
        case (.counter, .counter), (.gauge, .gauge), (.histogram, .histogram): true
        default: false
        }
    }

    private func remove(_ handler: AnyObject) {
        state.withLock { state in
            for (name, family) in state.families {
                let kept = family.filter { $0.value.object !== handler }
                guard kept.count < family.count else { continue }
                state.seriesCount -= family.count - kept.count
                state.families[name] = kept.isEmpty ? nil : kept
            }
        }
    }

    // MARK: Reading

    /// All that is counted now, in the order of names and labels.
    public func families() -> [MetricFamily] {
        let (families, descriptions) = state.withLock { ($0.families, $0.descriptions) }
        return families.sorted { $0.key < $1.key }.map { name, series in
            let ordered = series.sorted { $0.key.lexicographicallyPrecedes($1.key) }
            let kind: MetricFamily.Kind =
                switch ordered.first?.value {
                case .counter?: .counter
                case .histogram?: .histogram
                case .gauge?, nil: .gauge
                }
            return MetricFamily(
                name: name, help: descriptions[name]?.help ?? "", kind: kind,
                samples: ordered.flatMap { labels, series in series.samples(labels) })
        }
    }
}

extension MetricsRegistry.Series {
    fileprivate var object: AnyObject {
        switch self {
        case .counter(let series): series
        case .gauge(let series): series
        case .histogram(let series): series
        }
    }

    fileprivate func samples(_ labels: [MetricLabel]) -> [MetricFamily.Sample] {
        switch self {
        case .counter(let series): [MetricFamily.Sample(labels: labels, value: Double(series.value))]
        case .gauge(let series): [MetricFamily.Sample(labels: labels, value: series.value)]
        case .histogram(let series): series.samples(labels)
        }
    }
}
