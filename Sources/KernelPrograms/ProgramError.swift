import Glibc

/// What the kernel refused of programs and maps, with what a person needs to act on it.
package struct ProgramError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What was being done, and to what: "load the program depart".
    package let operation: String
    package let errno: Int32
    /// What the kernel's verifier said last of a program that it refused; empty if it said nothing.
    package let log: String

    package init(_ operation: String, errno: Int32 = Glibc.errno, log: String = "") {
        self.operation = operation
        self.errno = errno
        self.log = log
    }

    package var description: String {
        var text = operation
        if errno != 0 { text += ": \(String(cString: strerror(errno)))" }
        switch errno {
        case EPERM, EACCES: text += "; this needs CAP_BPF and CAP_NET_ADMIN"
        case ENOSYS: text += "; the running kernel has no bpf(2)"
        default: break
        }
        return log.isEmpty ? text : text + "\n" + log
    }
}
