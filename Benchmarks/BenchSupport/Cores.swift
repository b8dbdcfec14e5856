import CLinux
import Glibc

/// Which core does what. Everything measured happens on one; all else keeps off it where there is another.
package struct Cores {
    package let count = Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    package let measured: Int

    /// - Parameter measured: the last core if `nil`: the first serves most interrupts.
    package init(measured: Int?) throws {
        self.measured = measured ?? max(0, count - 1)
        guard (0..<min(count, 64)).contains(self.measured) else { throw BenchError("there is no core \(self.measured)") }
    }

    package func pinToMeasured() throws { try pin(1 << UInt(measured)) }

    package func pinToOthers() throws {
        let all = count >= 64 ? UInt.max : (1 << UInt(count)) - 1
        let others = all & ~(1 << UInt(measured))
        try pin(others == 0 ? all : others)
    }

    private func pin(_ mask: UInt) throws {
        guard mat_pin_thread(mask) == 0 else { throw BenchError("pin a thread to cores \(String(mask, radix: 2)): errno \(errno)") }
    }
}

/// Others' work on this thread's core waits for it as far as an ordinary process may ask for that.
package func yieldToNobody() {
    setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, -20)
    // Where sessions have equal shares (sched_autogroup), a thread's priority counts within its own session only.
    guard let file = fopen("/proc/self/autogroup", "w") else { return }
    fputs("-20", file)
    fclose(file)
}
