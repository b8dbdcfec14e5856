import CLinux
import Foundation
import Glibc

/// What figures depend on besides the program: told with every table.
package enum Machine {
    package static func facts() -> [String: String] {
        var result = ["cores": "\(sysconf(Int32(_SC_NPROCESSORS_ONLN)))"]
        var name = utsname()
        if uname(&name) == 0 {
            result["kernel"] = withUnsafeBytes(of: name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        }
        let processor = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8))?.split(separator: "\n")
            .first { $0.hasPrefix("model name") }?.split(separator: ":").last
        if let processor { result["processor"] = processor.trimmingCharacters(in: .whitespaces) }
        return result
    }

    /// One line of them.
    package static func line(_ facts: [String: String]) -> String {
        facts.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: "; ")
    }
}
