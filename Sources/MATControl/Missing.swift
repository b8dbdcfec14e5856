// A daemon of another version may leave out what `mat` asks for. Missing numbers are read as 0, missing lists as empty, and what is known is
// shown; a value of another kind than the key has is refused. The synthesized `init(from:)` of this module's types calls these rather than
// the library's own.

/// A part of a report that can be left out.
protocol Omittable: Decodable {
    static var missing: Self { get }
}

extension KeyedDecodingContainer {
    func decode<Element: Decodable>(_ type: [Element].Type, forKey key: Key) throws -> [Element] { try decodeIfPresent(type, forKey: key) ?? [] }
    func decode<Value: Decodable>(_ type: [String: Value].Type, forKey key: Key) throws -> [String: Value] {
        try decodeIfPresent(type, forKey: key) ?? [:]
    }
    func decode(_ type: String.Type, forKey key: Key) throws -> String { try decodeIfPresent(type, forKey: key) ?? "?" }
    func decode(_ type: Bool.Type, forKey key: Key) throws -> Bool { try decodeIfPresent(type, forKey: key) ?? false }
    func decode(_ type: Int.Type, forKey key: Key) throws -> Int { try decodeIfPresent(type, forKey: key) ?? 0 }
    func decode(_ type: Int64.Type, forKey key: Key) throws -> Int64 { try decodeIfPresent(type, forKey: key) ?? 0 }
    func decode(_ type: UInt64.Type, forKey key: Key) throws -> UInt64 { try decodeIfPresent(type, forKey: key) ?? 0 }
    func decode(_ type: UInt32.Type, forKey key: Key) throws -> UInt32 { try decodeIfPresent(type, forKey: key) ?? 0 }
    func decode(_ type: UInt8.Type, forKey key: Key) throws -> UInt8 { try decodeIfPresent(type, forKey: key) ?? 0 }
    func decode(_ type: UInt16.Type, forKey key: Key) throws -> UInt16 { try decodeIfPresent(type, forKey: key) ?? 0 }
    func decode<Value: Omittable>(_ type: Value.Type, forKey key: Key) throws -> Value { try decodeIfPresent(type, forKey: key) ?? .missing }
}

extension RoutingRulesReport: Omittable { static var missing: Self { Self(base: 0, passed: [], before: []) } }
extension UndecidedReport: Omittable { static var missing: Self { Self(count: 0, destinations: []) } }
extension NodeCountersReport: Omittable { static var missing: Self { Self() } }
extension IMSStatusReport.Certificates: Omittable { static var missing: Self { Self(endingSoon: 0, ended: 0, revoked: 0) } }
extension IMSStatusReport.Store: Omittable { static var missing: Self { Self(path: "?", lastFailure: nil, isLoading: false, unavailable: nil) } }
extension IMSStatusReport.Datagrams: Omittable { static var missing: Self { Self(received: 0, passedToCore: 0, lostBeforeCore: 0) } }
extension IMSStatusReport.Counters: Omittable { static var missing: Self { Self() } }
