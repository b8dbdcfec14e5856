import ArgumentParser
import Glibc
import MATLab
import MATRuntime
import Namespaces

@main
struct MatLab: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "lab", abstract: "A small internet in network namespaces, for trying MAT out and for its tests.",
        discussion: """
            mn and mn2 are mobile, mr is a mobile router with the host inner behind it; cn, plain and plain2 are stationary. ims1 and ims2 are \
            mapping servers, relay and relay2 relays, ns and resolver answer for names, r routes. Tools/Sources/MATLab/SmallInternet.swift \
            draws it. `networks` lists where mobile nodes can go: networks behind NATs and firewalls are built when a node first goes there, each \
            with a gateway, which is a host of the network's name.
            """,
        version: MATVersion.text,
        subcommands: [
            Up.self, Down.self, Status.self, Names.self, Networks.self, Shell.self, Exec.self, Attach.self, Detach.self, Block.self, Unblock.self,
            Delay.self, Undelay.self, Move.self, Reboot.self, Start.self, Stop.self, Restart.self, Nat.self,
            DistanceCommand.self, Patterns.self, Switch.self,
        ])

    @Option(help: ArgumentHelp("Prefix of the namespaces, so that several labs can stand side by side.", valueName: "name"))
    var name = "matlab"

    @Option(help: ArgumentHelp("Where mat, matd, imsd and mat-relay are (default: the newest of .build/release and .build/debug).", valueName: "dir"))
    var bin: String?

    func run() throws {
        print(Self.helpMessage())
        throw ExitCode.validationFailure
    }

    /// The lab of that name, for commands that need it and root.
    func lab(
        needsPrograms: Bool = false, _ encapsulation: Lab.Encapsulation? = nil, _ dataPlane: Lab.DataPlane? = nil
    ) throws(LabError) -> Lab {
        let programs = try bin.map { path throws(LabError) in try Programs.directory(path) }
        guard geteuid() == 0 else { throw LabError("network namespaces need root") }
        let lab = try Lab(name: name, programs: programs, encapsulation: encapsulation, dataPlane: dataPlane)
        guard lab.programs == nil, let newest = Programs.newest() else { return lab }
        return needsPrograms ? try Lab(name: name, programs: newest, encapsulation: encapsulation, dataPlane: dataPlane) : lab
    }
}

/// Where the product's programs are.
enum Programs {
    static func directory(_ path: String) throws(LabError) -> String {
        guard let real = realpath(path, nil) else { throw LabError("\(path) is no directory") }
        defer { free(real) }
        return String(cString: real)
    }

    /// The newest that was built, of those beside this program: .build/release and .build/debug.
    static func newest() -> String? {
        guard let own = try? directory("/proc/self/exe") else { return nil }
        let here = own.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" }
        return ["\(here)/../release", "\(here)/../debug"].compactMap { try? directory($0) }
            .compactMap { path in modified("\(path)/matd").map { (path, $0) } }.max { $0.1 < $1.1 }?.0
    }

    private static func modified(_ path: String) -> Double? {
        var status = stat()
        guard access(path, X_OK) == 0, stat(path, &status) == 0 else { return nil }
        return Double(status.st_mtim.tv_sec) + Double(status.st_mtim.tv_nsec) / 1e9
    }
}

/// Runs a command; what went wrong is one line, and exit status 1.
func complaining(_ body: () throws -> Void) throws {
    do { try body() } catch let error where error is LabError || error is ShellError {
        complain("lab: \(error)\n")
        throw ExitCode(Interruption.signal.map { 128 + $0 } ?? 1)
    }
}

/// To standard error.
func complain(_ text: String) { _ = text.withCString { write(2, $0, strlen($0)) } }
