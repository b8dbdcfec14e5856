import Glibc
import MATRuntime
import MATSignal

/// Files with private keys: made with care, and never by accident over another.
enum PrivateKeyFile {
    static func read(_ path: String) throws(CommandFailure) -> SigningKey {
        let text: String
        do throws(SecretFileError) {
            text = try SecretFile.read(path)
        } catch {
            throw CommandFailure("\(error.remedied { $0.errno == ENOENT ? "make a key with `mat keygen --out \(path)`" : nil })")
        }
        guard let key = KeyFile.parsePrivateKey(text) else {
            throw CommandFailure("\(path) holds no private key; its line begins with mat-ed25519-private:")
        }
        return key
    }

    /// Makes a key and writes it.
    static func make(_ path: String, replacing: Bool) throws(CommandFailure) -> SigningKey {
        var generator = SystemRandomNumberGenerator()
        let seed = (0..<4).flatMap { _ in withUnsafeBytes(of: generator.next()) { Array($0) } }
        guard let key = SigningKey(seed: seed) else {
            throw CommandFailure("the crypto library made no key; this should not happen")
        }
        do throws(SystemError) {
            if replacing {
                // A new file beside it, so that no moment is without a key, and no earlier file's mode is inherited.
                let file = try FileReplacement(path, .fixed(0o600))
                try file.write(KeyFile.write(key).utf8)
                try file.commit()
            } else {
                try write(KeyFile.write(key), toNew: path)
            }
        } catch {
            if error.errno == EEXIST, let kind = FileKind.of(path), kind != .file {
                throw CommandFailure("can't write \(path): it is \(kind.words), not a file")
            }
            if error.errno == EEXIST {
                throw CommandFailure(
                    "\(path) is there already and stays as it is; `mat keygen --show \(path)` prints its public key, --force replaces it"
                )
            }
            throw CommandFailure("can't \(error)")
        }
        return key
    }

    private static func write(_ text: String, toNew path: String) throws(SystemError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw SystemError("create \(path)") }
        defer { close(descriptor) }
        do throws(SystemError) {
            try FileReplacement.write(text.utf8, to: descriptor, path)
            guard fsync(descriptor) == 0 else { throw SystemError("write \(path)") }
        } catch {
            unlink(path)
            throw error
        }
    }
}
