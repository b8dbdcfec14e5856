// The protocol buffers encoding, as far as etcd's messages need it: varints and length-delimited fields.
//
// ```
//   message := (tag value)*          tag := varint(field number << 3 | wire type)
//   wire type 0: varint, 7 bits to an octet, the least significant first     wire type 2: varint length, then that many octets
//   wire types 1 and 5: 8 and 4 octets, which no field that is read here has
// ```
// See https://protobuf.dev/programming-guides/encoding. A field that has its default value (zero, empty) is left out.

struct ProtobufWriter {
    private(set) var octets: [UInt8] = []

    mutating func number(_ field: UInt64, _ value: UInt64) {
        guard value != 0 else { return }
        numberEvenZero(field, value)
    }

    /// Members of a `oneof` are written even if they have the default value: being there is what they say.
    mutating func numberEvenZero(_ field: UInt64, _ value: UInt64) {
        varint(field << 3)
        varint(value)
    }

    mutating func flag(_ field: UInt64, _ value: Bool) { number(field, value ? 1 : 0) }

    mutating func octets(_ field: UInt64, _ value: [UInt8]) {
        guard !value.isEmpty else { return }
        varint(field << 3 | 2)
        varint(UInt64(value.count))
        octets += value
    }

    mutating func text(_ field: UInt64, _ value: String) { octets(field, Array(value.utf8)) }

    mutating func message(_ field: UInt64, _ write: (inout ProtobufWriter) -> Void) {
        var inner = ProtobufWriter()
        write(&inner)
        varint(field << 3 | 2)
        varint(UInt64(inner.octets.count))
        octets += inner.octets
    }

    private mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            octets.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        octets.append(UInt8(truncatingIfNeeded: rest))
    }
}

/// Reads the fields of a message one after the other. Every read is bounded; nothing traps.
struct ProtobufReader {
    struct Malformed: Error {}

    /// A field's content. Only the kind that the reader of the message expects is used; others read as the default value.
    struct Field {
        var number: UInt64
        var value: UInt64 = 0
        var range: Range<Int> = 0..<0
        fileprivate let all: [UInt8]

        var signed: Int64 { Int64(bitPattern: value) }
        var flag: Bool { value != 0 }
        var octets: [UInt8] { Array(all[range]) }
        var text: String { String(decoding: all[range], as: UTF8.self) }
        var message: ProtobufReader { ProtobufReader(all, range) }
    }

    private let octets: [UInt8]
    private var position: Int
    private let end: Int

    init(_ octets: [UInt8]) { self.init(octets, 0..<octets.count) }

    fileprivate init(_ octets: [UInt8], _ range: Range<Int>) {
        self.octets = octets
        position = range.lowerBound
        end = range.upperBound
    }

    /// - Returns: `nil` at the end.
    mutating func next() throws(Malformed) -> Field? {
        guard position < end else { return nil }
        let tag = try varint()
        var field = Field(number: tag >> 3, all: octets)
        switch tag & 7 {
        case 0: field.value = try varint()
        case 2:
            let count = try varint()
            guard count <= UInt64(end - position) else { throw Malformed() }
            field.range = position..<position + Int(count)
            position = field.range.upperBound
        case 1: try skip(8)
        case 5: try skip(4)
        default: throw Malformed()
        }
        return field
    }

    private mutating func skip(_ count: Int) throws(Malformed) {
        guard count <= end - position else { throw Malformed() }
        position += count
    }

    private mutating func varint() throws(Malformed) -> UInt64 {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 70, by: 7) {
            guard position < end else { throw Malformed() }
            let octet = octets[position]
            position += 1
            value |= UInt64(octet & 0x7F) << shift
            if octet & 0x80 == 0 { return value }
        }
        throw Malformed()
    }
}
