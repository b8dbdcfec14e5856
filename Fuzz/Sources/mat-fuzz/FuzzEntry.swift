import Glibc
import MATFuzzing

/// The target named in MAT_FUZZ_TARGET: one program serves all of them, so that it is linked once.
private let target: FuzzTarget = {
    let name = getenv("MAT_FUZZ_TARGET").map { String(cString: $0) } ?? ""
    guard let target = FuzzTarget.named(name) else {
        let names = FuzzTarget.all.map(\.name).joined(separator: ", ")
        fatalError("MAT_FUZZ_TARGET is \"\(name)\", which is none of: \(names)")
    }
    return target
}()

/// What libFuzzer calls with each input. A property that does not hold ends the process, so that the input is kept.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let octets = Array(UnsafeBufferPointer(start: start, count: count))
    do throws(BrokenProperty) {
        try target.run(octets)
    } catch {
        fatalError("\(target): \(error)")
    }
    return 0
}
