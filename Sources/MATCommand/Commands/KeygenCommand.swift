import ArgumentParser
import Glibc
import MATSignal

struct KeygenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keygen", abstract: "Make a private key for a node or an IMS; prints its public key alone.",
        discussion: "A node's public key goes to the operator of its IMS, for `mat enrol`. The private key stays where it is.")

    @Option(help: ArgumentHelp("Write the new private key to this file (mode 0600).", valueName: "file"))
    var out: String?

    @Flag(help: "Replace a file that is there. The key in it is lost, and with it every certificate for it.")
    var force = false

    @Option(help: ArgumentHelp("Make nothing; print the public key of the private key in this file.", valueName: "file"))
    var show: String?

    func validate() throws {
        guard (out == nil) != (show == nil) else {
            throw ValidationError("Give --out FILE to make a key, or --show FILE to look at one")
        }
        guard !force || out != nil else { throw ValidationError("--force goes with --out") }
    }

    func run() throws {
        if let show { return print(KeyFile.write(try PrivateKeyFile.read(show).publicKey)) }
        guard let out else { return }
        let key = try PrivateKeyFile.make(out, replacing: force)
        print(KeyFile.write(key.publicKey))
    }
}
