import Glibc
import IMTPlan

/// Something the kernel refused, or could not do, with what a person needs to act on it.
public struct KernelError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        /// EPERM or EACCES: the daemon lacks CAP_NET_ADMIN or CAP_NET_RAW.
        case notPermitted
        /// A feature of the kernel is missing or switched off.
        case unsupported
        /// The kernel refused this request; nothing of it was applied.
        case refused
        /// The caller asked for something that can't be expressed, such as a pair of two families.
        case invalid
        /// A reply that does not parse, or none at all.
        case garbled
    }

    public let code: Code
    /// What was being done, as a phrase: "commit the address mapping table".
    public let operation: String
    /// What it was done to: "table ip mat, map out: add 3 elements".
    public let object: String
    /// The kernel's reason; 0 if it gave none.
    public let errno: Int32
    /// Sequence number of the netlink message that was refused, for comparison with a capture by nlmon.
    public let sequence: UInt32?
    /// The kernel's own words (extended acknowledgement), if it found any.
    public let kernelMessage: String?

    public init(
        _ code: Code, operation: String, object: String, errno: Int32 = 0, sequence: UInt32? = nil, kernelMessage: String? = nil
    ) {
        self.code = code
        self.operation = operation
        self.object = object
        self.errno = errno
        self.sequence = sequence
        self.kernelMessage = kernelMessage
    }

    /// A system call that failed just now.
    static func system(_ operation: String, _ object: String, errno: Int32 = Glibc.errno) -> KernelError {
        KernelError(code(of: errno), operation: operation, object: object, errno: errno)
    }

    static func invalid(_ operation: String, _ object: String) -> KernelError {
        KernelError(.invalid, operation: operation, object: object)
    }

    /// Does what plans, and says of what can't be planned what a refusal of the kernel would say.
    static func planned<T>(_ body: () throws(PlanError) -> T) throws(KernelError) -> T {
        do throws(PlanError) { return try body() } catch { throw .invalid(error.operation, error.object) }
    }

    static func code(of errno: Int32) -> Code {
        switch errno {
        case EPERM, EACCES: .notPermitted
        case EOPNOTSUPP, EAFNOSUPPORT, EPROTONOSUPPORT, ENODEV: .unsupported
        default: .refused
        }
    }

    public var description: String {
        var text = "\(operation): \(object)"
        if errno != 0 { text += ": \(String(cString: strerror(errno)))" }
        if let kernelMessage { text += " (\(kernelMessage))" }
        if let sequence { text += " [netlink sequence \(sequence)]" }
        switch code {
        case .notPermitted: text += "; matd needs CAP_NET_ADMIN and CAP_NET_RAW"
        case .unsupported: text += "; the running kernel lacks this feature or it is switched off"
        default: break
        }
        return text
    }
}
