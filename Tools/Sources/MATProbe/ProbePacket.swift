/// One datagram of a stream, in network order:
///
///     magic "MATP"     4 octets
///     kind             1    1 hello, 2 probe, 3 finish
///     zero             3
///     run              4    chosen by the client, repeated by the server: strangers' and earlier runs' packets don't count
///     interval         4    microseconds between the probes of either side
///     duration         4    milliseconds that either side sends
///     number           8    of the probe, from 0; in finish: how many were sent
///     sent             8    nanoseconds of CLOCK_MONOTONIC, just before the send call
public struct ProbePacket: Equatable, Sendable {
    public enum Kind: UInt8, Sendable { case hello = 1, probe, finish }

    public static let octets = 36
    private static let magic: UInt32 = 0x4d41_5450

    public var kind: Kind
    public var run: UInt32
    public var intervalMicroseconds: UInt32
    public var durationMilliseconds: UInt32
    public var number: UInt64
    public var sent: Nanoseconds

    public init(
        kind: Kind, run: UInt32, intervalMicroseconds: UInt32, durationMilliseconds: UInt32, number: UInt64, sent: Nanoseconds
    ) {
        self.kind = kind
        self.run = run
        self.intervalMicroseconds = intervalMicroseconds
        self.durationMilliseconds = durationMilliseconds
        self.number = number
        self.sent = sent
    }

    /// nil: not a packet of this program.
    public init?(decoding bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.octets, Self.read(bytes, 0, UInt32.self) == Self.magic, let kind = Kind(rawValue: bytes[4]),
            let sent = Nanoseconds(exactly: Self.read(bytes, 28, UInt64.self))
        else { return nil }
        self.init(
            kind: kind, run: Self.read(bytes, 8, UInt32.self), intervalMicroseconds: Self.read(bytes, 12, UInt32.self),
            durationMilliseconds: Self.read(bytes, 16, UInt32.self), number: Self.read(bytes, 20, UInt64.self), sent: sent)
    }

    /// Writes the packet into at least `octets` octets.
    public func encode(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count >= Self.octets)
        bytes.storeBytes(of: Self.magic.bigEndian, toByteOffset: 0, as: UInt32.self)
        bytes.storeBytes(of: (UInt32(kind.rawValue) << 24).bigEndian, toByteOffset: 4, as: UInt32.self)
        bytes.storeBytes(of: run.bigEndian, toByteOffset: 8, as: UInt32.self)
        bytes.storeBytes(of: intervalMicroseconds.bigEndian, toByteOffset: 12, as: UInt32.self)
        bytes.storeBytes(of: durationMilliseconds.bigEndian, toByteOffset: 16, as: UInt32.self)
        bytes.storeBytes(of: number.bigEndian, toByteOffset: 20, as: UInt64.self)
        bytes.storeBytes(of: UInt64(bitPattern: sent).bigEndian, toByteOffset: 28, as: UInt64.self)
    }

    /// The caller has checked the length.
    private static func read<Value: FixedWidthInteger>(_ bytes: UnsafeRawBufferPointer, _ offset: Int, _: Value.Type) -> Value {
        Value(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }
}
