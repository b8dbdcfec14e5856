import CLibFuzzer
import Glibc
import MATFuzzing

/// Runs the target named in MAT_FUZZ_TARGET under libFuzzer, whose options it takes: one program serves all targets, so that it is
/// linked once.
@main
enum MatFuzz {
    static let target: FuzzTarget = {
        let name = getenv("MAT_FUZZ_TARGET").map { String(cString: $0) } ?? ""
        guard let target = FuzzTarget.named(name) else {
            let names = FuzzTarget.all.map(\.name).joined(separator: ", ")
            fatalError("MAT_FUZZ_TARGET is \"\(name)\", which is none of: \(names)")
        }
        return target
    }()

    static func main() {
        var count = CommandLine.argc
        var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv
        exit(LLVMFuzzerRunDriver(&count, &arguments) { octets, count in MatFuzz.run(UnsafeBufferPointer(start: octets, count: count)) })
    }

    /// A property that does not hold ends the process, so that libFuzzer keeps the input.
    private static func run(_ octets: UnsafeBufferPointer<UInt8>) -> CInt {
        do throws(BrokenProperty) {
            try target.run(Array(octets))
        } catch {
            fatalError("\(target): \(error)")
        }
        return 0
    }
}
