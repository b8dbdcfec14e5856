import CLinux
import Glibc

/// A program that the kernel's verifier has accepted. It lives for as long as this value, or a link or control group that it is tied to.
package final class KernelProgram: @unchecked Sendable {
    private static let logOctetsMax = 1 << 20
    /// Of what the verifier says: its last lines name the instruction.
    private static let logOctetsShown = 2000

    /// What it is run on.
    package enum Kind: Sendable {
        /// Packets that come in or leave by a link (`ProgramPlace`).
        case classifier
        /// Sockets when they are made (`ControlGroup`).
        case sockets
    }

    package let name: String
    package let descriptor: Int32

    /// - Parameter maps: by the names that the source has for them.
    package init(_ code: ProgramCode, maps: [String: KernelMap] = [:], kind: Kind = .classifier) throws(ProgramError) {
        name = code.name
        let instructions = try code.linked(maps)
        let count = UInt32(instructions.count)
        let shortName = String(code.name.prefix(15))
        func load(_ log: UnsafeMutablePointer<CChar>?, _ octets: Int) -> Int32 {
            switch kind {
            case .classifier: mat_bpf_load_classifier(shortName, instructions, count, log, UInt32(octets))
            case .sockets: mat_bpf_load_socket_program(shortName, instructions, count, log, UInt32(octets))
            }
        }
        descriptor = load(nil, 0)
        guard descriptor < 0 else { return }
        let reason = errno
        // Once more, for what the verifier has to say.
        var log = [CChar](repeating: 0, count: Self.logOctetsMax)
        let again = log.withUnsafeMutableBufferPointer { load($0.baseAddress, $0.count) }
        if again >= 0 { close(again) }
        let text = String(decoding: log.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        throw ProgramError("load the program \(code.name)", errno: reason, log: String(text.suffix(Self.logOctetsShown)))
    }

    deinit { close(descriptor) }
}
