import CNamespaces
import Glibc
import Synchronization

/// A process that this program started.
///
/// It begins with nothing of this program's but what is asked for: descriptors above 2 are closed in it, all signals have their default
/// effect and none is blocked, so that SIGTERM and SIGINT reach it whatever the thread that started it had blocked. It is signalled by its
/// id, and only until it has been waited for, since the kernel gives the id to others then.
public final class Child: Sendable {
    /// Where both its outputs go.
    public enum Output: Sendable {
        case nowhere
        /// To this program's own.
        case inherited
        /// To the end of a file, which is made if it is not there.
        case file(String)
        /// To a descriptor of this program's.
        case descriptor(Int32)
    }

    public let pid: pid_t
    public let command: [String]
    /// How it ended, when it has been waited for: the exit status, or minus the signal.
    private let ended = Mutex<Int32?>(nil)
    /// Readable from its end on.
    private let handle: Int32

    /// - Parameters:
    ///   - command: the program, by its path or as found along PATH, and its arguments.
    ///   - input: a descriptor; nothing to read if `nil`.
    ///   - inNewSession: it lives on when this program's terminal or session ends. It is not ended with this value either.
    public init(_ command: [String], input: Int32? = nil, output: Output = .nowhere, inNewSession: Bool = false) throws(ShellError) {
        guard let program = command.first else { throw ShellError("no command") }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        if let input {
            posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO)
        } else {
            posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        }
        switch output {
        case .inherited: break
        case .nowhere: posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
        case .file(let path): posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, path, O_WRONLY | O_CREAT | O_APPEND, 0o644)
        case .descriptor(let descriptor): posix_spawn_file_actions_adddup2(&actions, descriptor, STDOUT_FILENO)
        }
        if case .inherited = output {} else { posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO) }
        _ = namespaces_spawn_close_from(&actions, 3)

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigdefault(&attributes, &all)
        let flags = Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) | (inNewSession ? namespaces_spawn_new_session : 0)
        posix_spawnattr_setflags(&attributes, flags)

        var strings: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        defer { for string in strings { free(string) } }
        var started: pid_t = 0
        let failure = posix_spawnp(&started, program, &actions, &attributes, &strings, environ)
        guard failure == 0 else { throw ShellError("\(program) can't be started: \(String(cString: strerror(failure)))") }
        // Without a handle nobody would hear of its end.
        let opened = namespaces_open_process(started)
        guard opened >= 0 else {
            let reason = String(cString: strerror(errno))
            kill(started, SIGKILL)
            waitpid(started, nil, 0)
            throw ShellError("\(program) was started and ended again: there is no handle of its process: \(reason)")
        }
        pid = started
        self.command = command
        handle = opened
        endsWithValue = !inNewSession
    }

    private let endsWithValue: Bool

    /// A shell command that is one program, which takes the shell's place: signals reach it.
    public convenience init(shell command: String, output: Output = .nowhere) throws(ShellError) {
        try self.init(["/bin/sh", "-c", "exec " + command], output: output)
    }

    deinit {
        if endsWithValue { end() }
        close(handle)
    }

    public var isRunning: Bool { status(afterMilliseconds: 0) == nil }

    /// Waits until it ends by itself.
    ///
    /// - Returns: the exit status, or minus the signal that ended it; `nil` if it still runs after `seconds`.
    public func wait(within seconds: Double) -> Int32? { status(afterMilliseconds: Int32(max(0, min(seconds * 1000, 2e9)))) }

    /// Sends a signal; nothing happens if it has ended.
    public func signal(_ number: Int32) {
        ended.withLock { ended in
            if ended == nil { kill(pid, number) }
        }
    }

    /// Sends a signal that ends it, and waits. What has not followed after ten seconds is killed.
    ///
    /// - Returns: the exit status, or minus the signal that ended it.
    @discardableResult
    public func end(_ number: Int32 = SIGKILL) -> Int32 {
        signal(number)
        // One that was stopped takes no signal but this.
        signal(SIGCONT)
        if let status = wait(within: 10) { return status }
        signal(SIGKILL)
        while true {
            if let status = wait(within: 10) { return status }
        }
    }

    private func status(afterMilliseconds patience: Int32) -> Int32? {
        if let known = ended.withLock({ $0 }) { return known }
        var waiting = pollfd(fd: handle, events: Int16(POLLIN), revents: 0)
        var answer: Int32
        repeat { answer = poll(&waiting, 1, patience) } while answer < 0 && errno == EINTR
        guard answer > 0 else { return nil }
        return ended.withLock { ended in
            if let ended { return ended }
            var status: Int32 = 0
            guard waitpid(pid, &status, 0) == pid else { return nil }
            ended = status & 0x7F == 0 ? status >> 8 & 0xFF : -(status & 0x7F)
            return ended
        }
    }
}
