import Glibc
import MATRuntime
import MATSignal

/// What the kernel says of this process.
package struct ProcessFigures {
    package var residentOctets: UInt64 = 0
    package var virtualOctets: UInt64 = 0
    package var openDescriptors = 0
    package var threads = 0
    package var cpuSeconds: UInt64 = 0
    /// Unix time in seconds.
    package var startedAt: UInt64 = 0

    /// Fields of /proc/self/stat behind the command's name (proc(5)), counted from there: state is 0.
    private enum Field {
        static let threads = 17
        static let startTicks = 19
    }

    /// Costs some tens of microseconds.
    package static func now() -> ProcessFigures {
        var figures = ProcessFigures()
        let page = UInt64(max(1, sysconf(Int32(_SC_PAGESIZE))))
        let memory = ((try? TextFile.read("/proc/self/statm")) ?? "").split(separator: " ").compactMap { UInt64($0) }
        if memory.count > 1 {
            figures.virtualOctets = memory[0] &* page
            figures.residentOctets = memory[1] &* page
        }
        // The name may hold blanks and parentheses, so fields count from the last one.
        let stat = (try? TextFile.read("/proc/self/stat")) ?? ""
        if let end = stat.lastIndex(of: ")") {
            let fields = stat[stat.index(after: end)...].split(separator: " ")
            if fields.count > Field.startTicks {
                figures.threads = Int(fields[Field.threads]) ?? 0
                let ticks = UInt64(max(1, sysconf(Int32(_SC_CLK_TCK))))
                let now = SystemClock.now()
                let sinceBoot = UInt64(max(0, now.monotonic.nanoseconds)) / 1_000_000_000
                let started = (UInt64(fields[Field.startTicks]) ?? 0) / ticks
                figures.startedAt = now.wallMilliseconds / 1000 - min(now.wallMilliseconds / 1000, sinceBoot - min(sinceBoot, started))
            }
        }
        var usage = rusage()
        if getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 {
            figures.cpuSeconds = UInt64(max(0, usage.ru_utime.tv_sec + usage.ru_stime.tv_sec))
        }
        if let directory = opendir("/proc/self/fd") {
            var count = 0
            while let entry = readdir(directory) {
                if entry.pointee.d_name.0 != 46 { count += 1 }
            }
            closedir(directory)
            // The directory itself was open while it was read.
            figures.openDescriptors = max(0, count - 1)
        }
        return figures
    }
}
