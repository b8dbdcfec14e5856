/// What went wrong at the control socket, in words for the person at the keyboard.
public struct ControlError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Cause: Hashable, Sendable {
        /// The daemon says no, or what it says can't be read.
        case answer
        /// It does not run, or can't be reached.
        case absent
        /// It has its socket there, and this user may not talk to it.
        case forbidden
        /// It was asked and gave no answer: whether it did, or will do, what was asked is not known.
        case unanswered
    }

    public let description: String
    public let cause: Cause
    /// There was no answer at all, which a client may want to tell from an answer that says no.
    public var isUnreachable: Bool { cause != .answer }

    public init(_ description: String, cause: Cause = .answer) {
        self.description = description
        self.cause = cause
    }
}

/// One line from a client: `{"command":"status","arguments":{...}}`. Arguments stay as they came until the command says which type they are.
public struct ControlRequest: Hashable, Sendable {
    private struct Head: Decodable { let command: String }
    private struct Body<Arguments: Decodable>: Decodable { let arguments: Arguments? }

    public let command: String
    /// Who asks, as the kernel knows it (SO_PEERCRED). Commands that change something may look at it.
    public let peerUID: UInt32
    /// Which process asks; 0 if it is in a PID namespace that this process does not see.
    public let peerProcess: Int32
    /// What stands for that process (pidfd) until the connection ends: to be duplicated by who wants it for longer. -1 if there is none.
    public let peerDescriptor: Int32
    /// The client's connection, for what lasts as long as that; see `ControlServer.onClosed`.
    public let connection: UInt64
    private let line: [UInt8]

    package init(
        line: [UInt8], peerUID: UInt32, peerProcess: Int32 = 0, peerDescriptor: Int32 = -1, connection: UInt64 = 0
    ) throws(ControlError) {
        self.peerProcess = peerProcess
        self.peerDescriptor = peerDescriptor
        do throws(ControlError) {
            command = try ControlJSON.decode(Head.self, from: line).command
        } catch {
            throw ControlError(#"the request can't be read: \#(error); it is a line such as {"command":"status"}"#)
        }
        self.line = line
        self.peerUID = peerUID
        self.connection = connection
    }

    /// The arguments as the command's own type; those of a request without any are an object without members.
    public func arguments<Arguments: Decodable>(as type: Arguments.Type) throws(ControlError) -> Arguments {
        do throws(ControlError) {
            if let arguments = try ControlJSON.decode(Body<Arguments>.self, from: line).arguments { return arguments }
            return try ControlJSON.decode(type, from: Array("{}".utf8))
        } catch {
            throw ControlError("the arguments of \(command) can't be read: \(error); are both programs of one version?")
        }
    }
}

/// One line to the client: `{"ok":true,"result":...}` or `{"ok":false,"error":"..."}`.
public enum ControlResponse: Hashable, Sendable {
    /// A result as JSON.
    case written([UInt8])
    case failed(String)

    /// The answer with this result; the reason, should it not be one that JSON can express.
    public static func result(_ value: some Encodable) -> ControlResponse {
        do throws(ControlError) {
            return .written(try ControlJSON.encode(value))
        } catch {
            return .failed(error.description)
        }
    }

    /// As it stands on the line.
    var line: [UInt8] {
        switch self {
        case .written(let result): Array(#"{"ok":true,"result":"#.utf8) + result + Array("}".utf8)
        case .failed(let reason): JSONValue.object(["ok": false, "error": .string(reason)]).write()
        }
    }
}

/// A response as the client reads it.
package struct ControlAnswer<Result: Decodable>: Decodable {
    package let ok: Bool
    package let result: Result?
    package let error: String?
}
