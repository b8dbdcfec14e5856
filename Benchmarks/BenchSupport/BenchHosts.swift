import Glibc
import Namespaces

extension Namespace {
    private static let benchPrefix = "mat-bench-"

    /// A host of this benchmark.
    package static func bench(_ role: String) throws -> Namespace { try Namespace("\(benchPrefix)\(getpid())-\(role)") }

    /// Removes what benchmarks left whose process is gone.
    package static func removeStaleBenches() { removeStale(prefix: benchPrefix) }
}
