import MATControl
import MATRuntime

/// What `--json` prints. docs/json/NAME.schema.json describes each, and docs/json/README.md says what may change within a version.
protocol PrintedReport: Encodable {
    /// Its schema's name and version: it is printed as `schema`.
    static var schema: String { get }
}

/// A report with its schema's name beside its own keys.
struct Labelled<Report: PrintedReport>: Encodable {
    private enum CodingKeys: CodingKey { case schema }

    private let report: Report

    init(_ report: Report) { self.report = report }

    func encode(to encoder: any Encoder) throws {
        try report.encode(to: encoder)
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(Report.schema, forKey: .schema)
    }
}

/// What `mat lookup` prints.
struct LookupJSON: PrintedReport {
    static let schema = "lookup/1"
    var value: JSONValue

    func encode(to encoder: any Encoder) throws { try value.encode(to: encoder) }
}

/// What `mat ims metrics` prints.
struct MetricFamilies: PrintedReport {
    static let schema = "ims-metrics/1"
    var families: [MetricsReport.Family]
}

// A node's.
extension NodeReport: PrintedReport { static let schema = "status/1" }
extension PeersReport: PrintedReport { static let schema = "peers/1" }
extension WhyReport: PrintedReport { static let schema = "why/1" }
extension HistoryReport: PrintedReport { static let schema = "history/1" }
extension ExplainReport: PrintedReport { static let schema = "explain/1" }
extension TraceReport: PrintedReport { static let schema = "trace/1" }
extension DoctorReport: PrintedReport { static let schema = "doctor/1" }
extension SteerReport: PrintedReport { static let schema = "attach/1" }
extension ProgramsReport: PrintedReport { static let schema = "ps/1" }

// A mapping server's.
extension IMSStatusReport: PrintedReport { static let schema = "ims-status/1" }
extension MappingListReport: PrintedReport { static let schema = "ims-list/1" }
extension MappingReport: PrintedReport { static let schema = "ims-show/1" }
extension RevocationReport: PrintedReport { static let schema = "ims-revoke/1" }
extension ImportReport: PrintedReport { static let schema = "ims-import/1" }
extension EnrolmentReport: PrintedReport { static let schema = "enrol/1" }
extension EnrolledReport: PrintedReport { static let schema = "ims-enrolled/1" }
extension TokenReport: PrintedReport { static let schema = "ims-token-create/1" }
extension TokensReport: PrintedReport { static let schema = "ims-token-list/1" }
