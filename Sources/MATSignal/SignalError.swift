/// Why octets are no message. `reason` is for a person: it says which field, and what is wrong with it.
public struct SignalError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Code: Hashable, Sendable {
        /// Section 2's list: too short, a length past the end, a missing or repeated option, non-zero padding, a bad address.
        case malformed
        /// A critical option of this kind is unknown; answered with code 10.
        case unsupportedOption(UInt16)
        /// No message of this protocol has this type.
        case unknownType(UInt8)
        /// X=0, or X=0 in a message that has no draft body.
        case draftBody
    }

    public let code: Code
    public let reason: String

    public init(_ code: Code, _ reason: String) {
        self.code = code
        self.reason = reason
    }

    public static func malformed(_ reason: String) -> SignalError { SignalError(.malformed, reason) }

    public var description: String { reason }
}
