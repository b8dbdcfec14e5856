/// One thing that reads octets of others, and what must hold whatever they are.
public struct FuzzTarget: Sendable, CustomStringConvertible {
    /// The word by which `deploy/fuzz` and the corpus directories know it.
    public let name: String
    /// For a person: what is read.
    public let about: String
    /// Longer inputs find nothing that shorter ones don't.
    public let octetsMax: Int
    private let body: @Sendable ([UInt8]) throws(BrokenProperty) -> Void

    init(_ name: String, _ about: String, octetsMax: Int, _ body: @escaping @Sendable ([UInt8]) throws(BrokenProperty) -> Void) {
        self.name = name
        self.about = about
        self.octetsMax = octetsMax
        self.body = body
    }

    public var description: String { name }

    /// Feeds it octets.
    ///
    /// - Throws: what does not hold. A trap ends the process instead, as it would end a daemon.
    public func run(_ octets: [UInt8]) throws(BrokenProperty) { try body(Array(octets.prefix(octetsMax))) }

    public static let all: [FuzzTarget] = [
        .signal, .inPath, .records, .strangers, .clients, .workers, .relays, .dns, .rdata, .imsConfiguration, .nodeConfiguration, .control,
        .transfer, .keyFiles,
        .netlink, .packets, .radius,
    ]

    public static func named(_ name: String) -> FuzzTarget? { all.first { $0.name == name } }
}

/// Something that must hold for any octets, and doesn't for these.
public struct BrokenProperty: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

func expect(_ holds: Bool, _ otherwise: @autoclosure () -> String) throws(BrokenProperty) {
    if !holds { throw BrokenProperty(otherwise()) }
}
