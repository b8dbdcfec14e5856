import Glibc
import Namespaces
import Synchronization

extension Namespace {
    private static let count = Mutex(0)

    /// A host of a test's.
    static func host(_ role: String) throws -> Namespace {
        let number = count.withLock { count in
            count += 1
            return count
        }
        return try Namespace("imtk-\(getpid())-\(number)\(role)")
    }
}

/// Why tests that need the kernel can't run here; `nil` if they can.
let kernelTestsImpossible: String? = {
    if getuid() != 0 { return "not root" }
    for tool in ["ip", "nft", "ping"] where shellStatus("command -v \(tool)").status != 0 { return "\(tool) is not installed" }
    return (try? Namespace.host("probe")) == nil ? "network namespaces can't be made here" : nil
}()

/// Work in another thread, for blocking ends of a conversation.
final class BackgroundWork: @unchecked Sendable {
    private var thread: JoinableThread?
    private var failure: (any Error)?

    init(_ body: @escaping () throws -> Void) {
        thread = JoinableThread { [self] in do { try body() } catch { failure = error } }
    }

    func wait() throws {
        thread?.join()
        if let failure { throw failure }
    }
}
