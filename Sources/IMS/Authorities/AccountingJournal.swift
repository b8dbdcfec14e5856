import CLinux
import Dispatch
import Glibc
import MATRuntime
import MATSignal
import RADIUS
import Synchronization

/// Accounts that no server has yet, in a file: what was begun is not forgotten with the process.
///
/// ```
/// + NUMBER NAME HEX       to be told to the RADIUS servers of this name: the attributes
/// - NUMBER                told
/// ```
/// A line is written before the answer leaves that follows from it, and synced soon after by another thread. When nothing waits the file is cut to
/// nothing.
final class AccountingJournal {
    struct Entry {
        var name: String
        var record: AccountingRecord
    }

    /// Told ones that stay in the file at most, unless more than that wait.
    private static let staleMax = 1000
    private static let rewriteMin = 50_000
    private static let octetsMax = 1 << 28

    private let path: String
    private var descriptor: Int32 = -1
    private(set) var waiting: [UInt64: Entry] = [:]
    private var lastNumber: UInt64 = 0
    private var linesCount = 0
    /// Whether no sync is waiting for its turn.
    private let isSynced = SyncFlag()
    private static let queue = DispatchQueue(label: "accounting journal")
    /// Said once, until it works again.
    private var failure: SystemError?

    /// Reads what an earlier run left. Lines that make no sense are left away: the last one may be half.
    init(path: String) throws(SystemError) {
        self.path = path
        descriptor = mat_open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw SystemError("open \(path)") }
        let text = try TextFile.read(path, octetsMax: Self.octetsMax)
        for line in text.split(separator: "\n") {
            linesCount += 1
            let words = line.split(separator: " ")
            guard words.count >= 2, let number = UInt64(words[1]) else { continue }
            lastNumber = max(lastNumber, number)
            if words[0] == "-" {
                waiting[number] = nil
            } else if words[0] == "+", words.count == 4, let octets = Hexadecimal.parse(words[3]),
                let attributes = RADIUSAttribute.decode(octets[...])
            {
                waiting[number] = Entry(name: String(words[2]), record: AccountingRecord(number: number, attributes))
            }
        }
        // A half line must not swallow the next.
        if !text.isEmpty, !text.hasSuffix("\n") { write("\n") }
    }

    deinit { close(descriptor) }

    /// - Returns: the record, and why it is not in the file, if that is news.
    func add(_ attributes: [RADIUSAttribute], for name: String) -> (record: AccountingRecord, failure: SystemError?) {
        lastNumber &+= 1
        let record = AccountingRecord(number: lastNumber, attributes)
        waiting[lastNumber] = Entry(name: name, record: record)
        return (record, write("+ \(lastNumber) \(name) \(Hexadecimal.write(RADIUSAttribute.encode(attributes)))\n"))
    }

    func done(_ number: UInt64) {
        guard waiting.removeValue(forKey: number) != nil else { return }
        write("- \(number)\n")
        if waiting.isEmpty, linesCount > Self.staleMax {
            if ftruncate(descriptor, 0) == 0 { linesCount = 0 }
        } else if linesCount - waiting.count > max(Self.rewriteMin, waiting.count) {
            rewrite()
        }
    }

    @discardableResult
    private func write(_ line: String) -> SystemError? {
        linesCount += 1
        let octets = Array(line.utf8)
        guard Glibc.write(descriptor, octets, octets.count) == octets.count else {
            defer { failure = failure ?? SystemError("write \(path)") }
            return failure == nil ? SystemError("write \(path)") : nil
        }
        failure = nil
        sync()
        return nil
    }

    private func sync() {
        let isFirst = isSynced.take()
        guard isFirst else { return }
        // A descriptor of its own: this one may be closed meanwhile.
        let copy = dup(descriptor)
        guard copy >= 0 else { return isSynced.set() }
        Self.queue.async { [isSynced] in
            // What is written from here on wants another.
            isSynced.set()
            fdatasync(copy)
            close(copy)
        }
    }

    private func rewrite() {
        var text = ""
        for (number, entry) in waiting.sorted(by: { $0.key < $1.key }) {
            text += "+ \(number) \(entry.name) \(Hexadecimal.write(RADIUSAttribute.encode(entry.record.attributes)))\n"
        }
        guard (try? TextFile.replace(path, with: text, mode: 0o600)) != nil else { return }
        let fresh = mat_open(path, O_RDWR | O_APPEND | O_CLOEXEC, 0)
        guard fresh >= 0 else { return }
        close(descriptor)
        descriptor = fresh
        linesCount = waiting.count
    }
}

/// A word that two threads share.
private final class SyncFlag: Sendable {
    private let word = Atomic(true)
    func take() -> Bool { word.exchange(false, ordering: .acquiringAndReleasing) }
    func set() { word.store(true, ordering: .releasing) }
}
