import BenchSupport
import CLinux
import Glibc

/// A map in the kernel. It lives as long as this value or a loaded program that names it.
final class BPFMap {
    enum Kind: UInt32 { case hash = 1, array = 2 }

    let descriptor: Int32
    private let keyOctets: Int
    private let valueOctets: Int

    init(_ kind: Kind, keyOctets: Int, valueOctets: Int, entriesMax: UInt32) throws {
        self.keyOctets = keyOctets
        self.valueOctets = valueOctets
        descriptor = mat_bpf_map_create(kind.rawValue, UInt32(keyOctets), UInt32(valueOctets), entriesMax)
        guard descriptor >= 0 else { throw BenchError("create a BPF map: errno \(errno)") }
    }

    deinit { close(descriptor) }

    func set(_ key: [UInt8], _ value: [UInt8]) throws {
        guard key.count == keyOctets, value.count == valueOctets else { throw BenchError("an element does not fit its BPF map") }
        guard mat_bpf_map_update(descriptor, key, value) == 0 else { throw BenchError("add to a BPF map: errno \(errno)") }
    }
}

/// A classifier that the verifier has accepted.
final class BPFProgram {
    private static let logOctetsMax = 1 << 20

    let descriptor: Int32

    init(_ name: String, _ instructions: [BPFAssembler.Instruction]) throws {
        let octets = instructions.flatMap(\.octets)
        let count = UInt32(instructions.count)
        descriptor = mat_bpf_load_classifier(name, octets, count, nil, 0)
        guard descriptor < 0 else { return }
        let reason = errno
        // Once more, for what the verifier has to say; its last lines name the instruction.
        var log = [CChar](repeating: 0, count: Self.logOctetsMax)
        let again = mat_bpf_load_classifier(name, octets, count, &log, UInt32(log.count))
        if again >= 0 { close(again) }
        let text = String(decoding: log.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        throw BenchError("load the BPF program \(name): errno \(reason)\n\(text.suffix(2000))")
    }

    deinit { close(descriptor) }
}
