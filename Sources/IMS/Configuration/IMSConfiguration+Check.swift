import Glibc
import MATRuntime
import MATSignal

/// What is wrong outside the configuration's own text; one line each.
public struct IMSServerError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
    init(_ lines: [String]) { description = lines.joined(separator: "\n") }

    /// The port for signalling could not be had, or what serves it.
    init(listening error: SystemError) {
        switch error.errno {
        case EADDRINUSE: self.init("\(error); is another imsd running?")
        case EADDRNOTAVAIL: self.init("\(error); no link of this host has that address: correct `listen: addresses`")
        default: self.init("\(error)")
        }
    }
}

extension IMSConfiguration {
    /// Reads the signing key.
    ///
    /// - Returns: `nil` if none is configured.
    public func signingKey() throws(IMSServerError) -> SigningKey? {
        guard let path = signingKeyPath else { return nil }
        let text: String
        do throws(SecretFileError) {
            text = try SecretFile.read(path)
        } catch {
            let remedied = error.remedied { $0.errno == ENOENT ? "make it with `mat keygen`" : "give it to the user that imsd runs as" }
            throw IMSServerError("signing-key: \(remedied)")
        }
        guard let key = KeyFile.parsePrivateKey(text) else {
            throw IMSServerError("signing-key: \(path) holds no private key; its line begins with mat-ed25519-private: (see `mat keygen`)")
        }
        return key
    }

    /// What `imsd --check` looks at beyond the file itself: the key file, and the store's directory. Changes nothing.
    public func check() throws(IMSServerError) {
        var problems: [String] = []
        do throws(IMSServerError) {
            let signing = try signingKey()?.publicKey
            for key in previousKeys where key == signing || publicKeys.contains(key) {
                problems.append("previous-keys: \(KeyFile.write(key)) signs or is accepted still; take it out of one of the two")
            }
        } catch {
            problems.append(error.description)
        }
        for group in radius {
            do throws(IMSServerError) {
                _ = try group.serversWithSecrets()
            } catch {
                problems.append(error.description)
            }
        }
        do throws(ControlError) { try ControlServer.checkGroup(controlGroup) } catch { problems.append("control-group: \(error)") }
        if etcd == nil { problems += fileProblems }
        guard problems.isEmpty else { throw IMSServerError(problems) }
    }

    /// Whether what is at the store's place is one, which a start looks at too. What can't be read counts as one: the store says why.
    public func checkStore() throws(IMSServerError) {
        guard etcd == nil, let reason = MappingStore.objection(to: storePath) else { return }
        throw IMSServerError(reason)
    }

    private var fileProblems: [String] {
        var problems: [String] = []
        let directory = storePath.split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" }
        if access(directory.isEmpty ? "/" : directory, W_OK | X_OK) != 0 {
            let reason = String(cString: strerror(errno))
            problems.append("store: directory \(directory) can't be written: \(reason); make it, and give it to the user that imsd runs as")
        } else if access(storePath, F_OK) == 0, access(storePath, R_OK | W_OK) != 0 {
            problems.append(
                "store: \(storePath) can't be written: \(String(cString: strerror(errno))); give it to the user that imsd runs as")
        } else if let reason = MappingStore.objection(to: storePath) {
            problems.append(reason)
        }
        return problems
    }
}
