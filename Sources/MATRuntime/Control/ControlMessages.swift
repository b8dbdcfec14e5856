/// What went wrong at the control socket, in words for the person at the keyboard.
public struct ControlError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    /// There was no answer at all, which a client may want to tell from an answer that says no.
    public let isUnreachable: Bool

    public init(_ description: String, isUnreachable: Bool = false) {
        self.description = description
        self.isUnreachable = isUnreachable
    }
}

/// One line from a client: `{"command":"status","arguments":{...}}`.
public struct ControlRequest: Hashable, Sendable {
    public var command: String
    public var arguments: [String: JSONValue]
    /// Who asks, as the kernel knows it (SO_PEERCRED). Commands that change something may look at it.
    public var peerUID: UInt32

    public init(command: String, arguments: [String: JSONValue] = [:], peerUID: UInt32) {
        self.command = command
        self.arguments = arguments
        self.peerUID = peerUID
    }

    /// The arguments as the command's own type.
    public func arguments<Arguments: Decodable>(as type: Arguments.Type) throws(ControlError) -> Arguments {
        try ControlJSON.decode(type, from: JSONValue.object(arguments).write())
    }

    package init(line: some Collection<UInt8>, peerUID: UInt32) throws(ControlError) {
        let value = try JSONValue.parse(line)
        guard let command = value["command"]?.string else { throw ControlError("a request is an object with a \"command\"") }
        switch value["arguments"] {
        case nil, .null?: self.init(command: command, peerUID: peerUID)
        case .object(let arguments)?: self.init(command: command, arguments: arguments, peerUID: peerUID)
        default: throw ControlError("\"arguments\" must be an object")
        }
    }
}

/// One line to the client: `{"ok":true,"result":...}` or `{"ok":false,"error":"..."}`.
public enum ControlResponse: Hashable, Sendable {
    case ok(JSONValue)
    /// A result that is written already.
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
        case .ok(let result): JSONValue.object(["ok": true, "result": result]).write()
        case .written(let result): Array(#"{"ok":true,"result":"#.utf8) + result + Array("}".utf8)
        case .failed(let reason): JSONValue.object(["ok": false, "error": .string(reason)]).write()
        }
    }

    package init(line: some Collection<UInt8>) throws(ControlError) {
        let value = try JSONValue.parse(line)
        switch value["ok"]?.bool {
        case true?: self = .ok(value["result"] ?? .null)
        case false?: self = .failed(value["error"]?.string ?? "the daemon gave no reason")
        case nil: throw ControlError("the daemon's answer is not one of this protocol")
        }
    }
}
