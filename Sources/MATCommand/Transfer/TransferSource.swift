import Glibc
import IMS
import MATRuntime

/// An exported file: looked at whole before anything of it is used, since a file that was cut off or changed must not be half imported.
struct TransferSource {
    let path: String
    let header: TransferHeader
    let trailer: TransferTrailer

    /// Reads the file once, and compares it with its last line.
    init(path: String) throws(CommandFailure) {
        self.path = path
        var sum = TransferSum()
        var header: TransferHeader?
        var trailer: TransferTrailer?
        try Self.forEachLine(of: path) { number, octets throws(CommandFailure) in
            guard trailer == nil else { throw CommandFailure("\(path):\(number): there are lines behind the trailer") }
            let line = try Self.parse(octets, path, number)
            if number == 1 {
                guard case .header(let found) = line else { throw CommandFailure("\(path):1: it is no export of imsd: the header is missing") }
                header = found
            }
            if case .trailer(let found) = line { trailer = found } else { sum.add(line, octets) }
        }
        guard let header else { throw CommandFailure("\(path) is empty") }
        guard let trailer else { throw CommandFailure("\(path) was cut off: its last line is missing; export again") }
        guard trailer == sum.result else {
            throw CommandFailure("\(path) was changed or damaged: its lines don't fit the checksum in the last one; export again")
        }
        self.header = header
        self.trailer = trailer
    }

    /// Calls `body` with the contents, many at a time: each group has at most so many lines, and so many octets.
    func forEachGroup(
        lines linesMax: Int, octets octetsMax: Int, _ body: ([TransferLine]) throws(CommandFailure) -> Void
    ) throws(CommandFailure) {
        var group: [TransferLine] = []
        var octetsCount = 0
        try Self.forEachLine(of: path) { number, octets throws(CommandFailure) in
            let line = try Self.parse(octets, path, number)
            switch line {
            case .header, .trailer: return
            case .mapping, .certificate, .secret, .lease, .token: break
            }
            if group.count == linesMax || octetsCount + octets.count > octetsMax {
                try body(group)
                group = []
                octetsCount = 0
            }
            group.append(line)
            octetsCount += octets.count + 1
        }
        if !group.isEmpty { try body(group) }
    }

    private static func parse(_ octets: ArraySlice<UInt8>, _ path: String, _ number: Int) throws(CommandFailure) -> TransferLine {
        do throws(TransferError) {
            return try TransferLine(parsing: octets)
        } catch {
            throw CommandFailure("\(path):\(number): \(error); if the file was changed or damaged, export again")
        }
    }

    private static func forEachLine(
        of path: String, _ body: (Int, ArraySlice<UInt8>) throws(CommandFailure) -> Void
    ) throws(CommandFailure) {
        let descriptor: Int32
        do throws(SystemError) { descriptor = try TextFile.open(path) } catch { throw CommandFailure("can't read \(path): \(error.reason)") }
        defer { close(descriptor) }
        var pending: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 18)
        var number = 0
        while true {
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0 {
                if errno == EINTR { continue }
                throw CommandFailure("can't read \(path): \(String(cString: strerror(errno)))")
            }
            if count == 0 { break }
            pending += chunk[..<count]
            var start = pending.startIndex
            while let end = pending[start...].firstIndex(of: 10) {
                number += 1
                guard end - start <= TransferLine.octetsMax else { throw CommandFailure("\(path):\(number): the line is too long") }
                try body(number, pending[start..<end])
                start = end + 1
            }
            pending.removeSubrange(..<start)
            guard pending.count <= TransferLine.octetsMax else { throw CommandFailure("\(path):\(number + 1): the line is too long") }
        }
        guard pending.isEmpty else { throw CommandFailure("\(path) was cut off in line \(number + 1); export again") }
    }
}
