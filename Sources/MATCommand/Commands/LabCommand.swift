import ArgumentParser
import Glibc

struct LabCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lab", abstract: "A small internet in network namespaces, for trying MAT out (runs deploy/lab).",
        discussion:
            "`mat lab up` builds it, `mat lab shell mn` opens a shell on the mobile node, `mat lab down` removes it. Needs root and the source tree."
    )

    @Argument(parsing: .captureForPassthrough, help: "What deploy/lab is to do; `mat lab help` lists it.")
    var arguments: [String] = []

    func run() throws {
        guard let script = Self.script(near: Self.ownPath) else {
            throw CommandFailure(
                "deploy/lab is not found beside mat or above it; it comes with the source tree, so run mat from its .build directory"
            )
        }
        var strings: [UnsafeMutablePointer<CChar>?] = ([script] + arguments).map { strdup($0) } + [nil]
        execv(script, &strings)
        let reason = String(cString: strerror(errno))
        for string in strings { free(string) }
        throw CommandFailure("\(script) can't be run: \(reason)")
    }

    /// `deploy/lab` in the first directory upwards that has it.
    static func script(near program: String) -> String? {
        var directories = program.split(separator: "/").dropLast()
        while true {
            let path = (directories + ["deploy", "lab"]).reduce("") { "\($0)/\($1)" }
            if access(path, X_OK) == 0 { return path }
            if directories.popLast() == nil { return nil }
        }
    }

    private static var ownPath: String {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink("/proc/self/exe", &buffer, buffer.count)
        return String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
