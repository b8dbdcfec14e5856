import Glibc
import Namespaces
import Testing

@Suite("Bytecode")
struct BytecodeTests {
    @Test("The programs that are built in are what clang makes of their sources", .enabled(if: access("/usr/include/linux/bpf.h", R_OK) == 0))
    func compiled() throws {
        let root = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined()
        let said = try shell("\(root)/deploy/bytecode --check 2>&1 || echo differs")
        #expect(!said.contains("differs"), "\(said)")
    }
}
