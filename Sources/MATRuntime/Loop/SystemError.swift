import Glibc

/// A system call that failed: which one, on what, and the kernel's reason.
public struct SystemError: Error, CustomStringConvertible {
    public let operation: String
    public let errno: Int32
    private let words: String?

    public init(_ operation: String, errno: Int32 = Glibc.errno) {
        self.operation = operation
        self.errno = errno
        words = nil
    }

    /// - Parameter reason: in words of our own, where the kernel's say too little.
    public init(_ operation: String, reason: String, errno: Int32) {
        self.operation = operation
        self.errno = errno
        words = reason
    }

    public var reason: String { words ?? String(cString: strerror(errno)) }
    public var description: String { "\(operation): \(reason)" }
}
