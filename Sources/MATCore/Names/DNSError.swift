/// Text or wire data that isn't what it should be: which part, and why.
public struct DNSError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String

    public init(_ description: String) { self.description = description }
}
