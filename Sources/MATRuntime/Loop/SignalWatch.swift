import CLinux
import Glibc

extension EventLoop {
    /// Delivers the given signals to `body` in the loop instead of their default action. To be called before any thread
    /// is started, so that all threads inherit the mask.
    public func onSignals(_ signals: [Int32], _ body: @escaping (Int32) -> Void) throws(SystemError) {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in signals { sigaddset(&set, signal) }
        guard pthread_sigmask(SIG_BLOCK, &set, nil) == 0 else { throw SystemError("pthread_sigmask") }
        let descriptor = signalfd(-1, &set, Int32(SFD_CLOEXEC | SFD_NONBLOCK))
        guard descriptor >= 0 else { throw SystemError("signalfd") }
        try watch(descriptor) {
            var info = signalfd_siginfo()
            while read(descriptor, &info, MemoryLayout<signalfd_siginfo>.size) == MemoryLayout<signalfd_siginfo>.size {
                body(Int32(bitPattern: info.ssi_signo))
            }
        }
    }
}
