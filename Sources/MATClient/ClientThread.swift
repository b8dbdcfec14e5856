import Glibc
import MATRuntime

/// The thread in which a client's loop runs, and the only way to what belongs to that loop. It ends when the shell stops its loop.
final class ClientThread: @unchecked Sendable {
    /// As `ps -L` shows it.
    static let name = "mat-client"

    // Used in the loop's thread only.
    private let shell: ClientShell
    private let poster: Poster

    /// - Parameter shell: nobody else's from now on.
    init(_ shell: sending ClientShell) throws(SystemError) {
        poster = shell.loop.poster
        self.shell = shell
        try Self.detach { [self] in
            Self.nameThread()
            self.shell.run()
        }
    }

    private static func nameThread() {
        let file = open("/proc/thread-self/comm", O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { return }
        _ = write(file, name, name.utf8.count)
        close(file)
    }

    /// Has the loop's thread do it, after what it was asked for before.
    func post(_ body: @escaping @Sendable (ClientShell) -> Void) {
        poster.post { [self] in body(shell) }
    }

    /// Runs what blocks in a thread of its own.
    static func detach(_ body: @escaping @Sendable () -> Void) throws(SystemError) {
        pthread_detach(try SystemThread.start(body))
    }
}
