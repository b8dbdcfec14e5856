import Glibc

/// What went wrong outside of this program, with what a person needs to know of it.
public struct ShellError: Error, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
}

/// What came of a command.
public struct CommandResult: Sendable {
    /// The exit status, or minus the signal that ended it.
    public var status: Int32
    /// What it wrote, on either output.
    public var output: String
}

/// Runs a command to its end.
///
/// - Parameters:
///   - input: what it reads; nothing if `nil`.
///   - seconds: one that takes longer is killed, and an error thrown.
public func runCommand(_ command: [String], input: String? = nil, within seconds: Double = 300) throws(ShellError) -> CommandResult {
    let output = try Pipe()
    // An input of any length is there before the command begins: nobody has to feed it while its output is read.
    let source = try input.map { text throws(ShellError) in try temporaryFile(holding: text) }
    defer { if let source { close(source) } }
    let child = try Child(command, input: source, output: .descriptor(output.writing))
    output.closeWriting()
    let deadline = monotonicSeconds() + seconds
    // A process that the command leaves behind may hold the pipe open for ever: the command's own end counts.
    var ended: Int32?
    while ended == nil, !output.isAtEnd {
        guard monotonicSeconds() < deadline else { break }
        output.read(within: 0.02)
        ended = child.wait(within: 0)
    }
    ended = ended ?? child.wait(within: max(0, deadline - monotonicSeconds()))
    output.readWhatIsThere()
    guard let ended else {
        child.end()
        throw ShellError("\(command.joined(separator: " ")): took over \(seconds) s; its output: \(output.text.suffix(2000))")
    }
    return CommandResult(status: ended, output: output.text)
}

/// Runs a shell command to its end, whatever its exit status.
public func shellStatus(_ command: String, input: String? = nil, within seconds: Double = 300) -> (status: Int32, output: String) {
    do throws(ShellError) {
        let result = try runCommand(["/bin/sh", "-c", "{ \(command)\n} 2>&1"], input: input, within: seconds)
        return (result.status, result.output)
    } catch {
        return (-1, error.description)
    }
}

/// Runs a shell command to its end.
///
/// - Returns: what it printed, on either output.
/// - Throws: if its exit status is not 0, or it takes longer than `seconds`.
@discardableResult
public func shell(_ command: String, input: String? = nil, within seconds: Double = 300) throws(ShellError) -> String {
    let (status, output) = shellStatus(command, input: input, within: seconds)
    guard status == 0 else { throw ShellError("\(command): exit \(status): \(output.prefix(2000))") }
    return output
}

/// The output of a command, as far as it has been read.
private final class Pipe {
    private(set) var isAtEnd = false
    let writing: Int32
    private let reading: Int32
    private var isWritingOpen = true
    private var octets: [UInt8] = []

    init() throws(ShellError) {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw ShellError("no pipe: \(String(cString: strerror(errno)))") }
        (reading, writing) = (ends[0], ends[1])
        for end in ends { setCloseOnExec(end) }
    }

    deinit {
        close(reading)
        closeWriting()
    }

    var text: String { String(decoding: octets, as: UTF8.self) }

    func closeWriting() {
        if isWritingOpen { close(writing) }
        isWritingOpen = false
    }

    /// Waits for something to read, and reads it.
    func read(within seconds: Double) {
        var waiting = pollfd(fd: reading, events: Int16(POLLIN), revents: 0)
        guard !isAtEnd, poll(&waiting, 1, Int32(seconds * 1000)) > 0 else { return }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = Glibc.read(reading, &buffer, buffer.count)
        if count > 0 { octets += buffer[..<count] } else if count == 0 || errno != EINTR { isAtEnd = true }
    }

    func readWhatIsThere() {
        var count = -1
        while !isAtEnd, count != octets.count {
            count = octets.count
            read(within: 0)
        }
    }
}

private func setCloseOnExec(_ descriptor: Int32) {
    // fcntl() is variadic in C, and imported for the commands that take an int.
    _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
}

/// A file without a name, to be read from its beginning.
private func temporaryFile(holding text: String) throws(ShellError) -> Int32 {
    var template = Array("/tmp/mat-input-XXXXXX".utf8CString)
    let descriptor = mkstemp(&template)
    guard descriptor >= 0 else { throw ShellError("no temporary file: \(String(cString: strerror(errno)))") }
    unlink(template)
    setCloseOnExec(descriptor)
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
        guard count > 0 else {
            let failure = errno
            close(descriptor)
            throw ShellError("a temporary file can't be written: \(String(cString: strerror(failure)))")
        }
        rest = rest.dropFirst(count)
    }
    lseek(descriptor, 0, SEEK_SET)
    return descriptor
}

/// Seconds that never go back.
public func monotonicSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}
