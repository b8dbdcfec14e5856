import IMS
import MATRuntime

/// Where an export goes: standard output, or a file that appears under its name only when it is whole.
final class TransferSink {
    /// Octets gathered before they are written.
    private static let bufferOctetsMax = 1 << 18

    private let file: OutputFile
    private var buffer: [UInt8] = []
    private var sum = TransferSum()

    init(path: String?) throws(CommandFailure) { file = try OutputFile(path ?? "-", .fixed(0o600)) }

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
        try file.finish()
        return trailer
    }

    private func append(_ octets: [UInt8]) throws(CommandFailure) {
        buffer += octets
        buffer.append(10)
        if buffer.count >= Self.bufferOctetsMax { try flush() }
    }

    private func flush() throws(CommandFailure) {
        try file.write(buffer)
        buffer.removeAll(keepingCapacity: true)
    }
}
