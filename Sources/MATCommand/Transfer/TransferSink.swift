import Glibc
import IMS
import MATRuntime

/// Where an export goes: standard output, or a file that appears under its name only when it is whole.
final class TransferSink {
    /// Octets gathered before they are written.
    private static let bufferOctetsMax = 1 << 18

    private let path: String?
    private var descriptor: Int32
    private var buffer: [UInt8] = []
    private var sum = TransferSum()

    private var temporary: String? { path.map { $0 + ".new" } }
    private var name: String { path ?? "standard output" }

    init(path: String?) throws(CommandFailure) {
        self.path = path
        guard let path else {
            descriptor = STDOUT_FILENO
            return
        }
        descriptor = open(path + ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw CommandFailure("can't write \(path).new: \(String(cString: strerror(errno)))") }
    }

    func write(_ line: TransferLine) throws(CommandFailure) {
        let octets = line.json.write()
        sum.add(line, octets)
        try append(octets)
    }

    /// Writes the trailer, and makes the file durable under its name.
    func finish() throws(CommandFailure) -> TransferTrailer {
        let trailer = sum.result
        try append(TransferLine.trailer(trailer).json.write())
        try flush()
        guard let path, let temporary else { return trailer }
        guard fsync(descriptor) == 0, rename(temporary, path) == 0 else {
            throw CommandFailure("can't write \(path): \(String(cString: strerror(errno)))")
        }
        close(descriptor)
        descriptor = -1
        return trailer
    }

    /// Removes what was written, unless it was finished.
    func discard() {
        guard let temporary, descriptor >= 0 else { return }
        close(descriptor)
        descriptor = -1
        unlink(temporary)
    }

    private func append(_ octets: [UInt8]) throws(CommandFailure) {
        buffer += octets
        buffer.append(10)
        if buffer.count >= Self.bufferOctetsMax { try flush() }
    }

    private func flush() throws(CommandFailure) {
        var rest = buffer[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 {
                if errno == EINTR { continue }
                throw CommandFailure("can't write \(name): \(String(cString: strerror(errno)))")
            }
            rest = rest.dropFirst(count)
        }
        buffer.removeAll(keepingCapacity: true)
    }
}
