import BenchSupport
import Foundation
import Namespaces

/// Another mat-bench, mostly one of an earlier commit: it measures the same cases in the rounds of this one, by turns with it, so that both had the same
/// machine. Each of its rounds is a process that has one round; its rows are compared with its own plain IP.
struct EarlierProgram {
    let path: String
    /// What is measured, as this program was told.
    let arguments: [String]
    /// A round of all cases and figures, with what others leave of the machine.
    private static let secondsMax = 1800.0

    /// One round, added to `samples`; a case that the other program does not have fails, and the others count.
    func round(into samples: inout Samples) {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("mat-bench-\(getpid())-before.json")
        defer { try? FileManager.default.removeItem(at: file) }
        do {
            let result = try runCommand(
                [path, "data-plane", "--runs", "1", "--json", file.path] + arguments, within: Self.secondsMax)
            // It ends with 1 if a case failed, and has written the rest.
            guard result.status == 0 || result.status == 1 else { throw BenchError("\(path) ended with \(result.status): \(result.output)") }
            let report = try JSONDecoder().decode(BenchReport.self, from: Data(contentsOf: file))
            for item in samples.cases {
                guard let row = report.rows.first(where: item.isMeasured) else {
                    samples.fail(item, "\(path) does not measure it")
                    continue
                }
                if let failure = row.failure {
                    samples.fail(item, failure)
                    continue
                }
                let values = row.figures.compactMap { name, value in Figure(rawValue: name).map { ($0, value.median) } }
                samples.add(Dictionary(uniqueKeysWithValues: values), for: item)
            }
        } catch {
            for item in samples.cases { samples.fail(item, "\(error)") }
        }
    }
}

extension Case {
    fileprivate func isMeasured(by row: BenchReport.Row) -> Bool {
        row.variant == variant && (row.family == "v4") == isIPv4 && row.peers == peers && row.pattern == pattern
    }
}
