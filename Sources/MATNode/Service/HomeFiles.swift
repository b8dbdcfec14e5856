import Glibc
import MATCore
import MATRuntime
import MATSignal
import NodeCore

/// The files that say who the node is: its private keys and certificates.
enum HomeFiles {
    /// Reads the configured homes.
    ///
    /// - Throws: with the file and the remedy, if one is missing, damaged, readable by others, or does not fit the others.
    static func read(_ configuration: NodeConfiguration, _ state: StateDirectory?) throws(NodeServiceError) -> [HomeIdentity] {
        var identities: [HomeIdentity] = []
        for home in configuration.homes {
            let key = try readKey(home.keyPath)
            var certificate = try readCertificate(home.certificatePath)
            // The IMS may have renewed it since it was enrolled.
            if let state, let kept = try? readCertificate(state.certificatePath(home.hoa)), kept.prefix == certificate.prefix,
                kept.nodeKey == key.publicKey,
                kept.notBefore > certificate.notBefore
            {
                certificate = kept
            }
            guard certificate.prefix == home.prefix else {
                let wanted = home.prefix.length == 128 ? "\(home.hoa)" : "\(home.prefix)"
                throw NodeServiceError("\(home.certificatePath) certifies \(certificate.prefix), not \(wanted); enrol \(wanted) with `mat enrol`")
            }
            guard certificate.nodeKey == key.publicKey else {
                throw NodeServiceError(
                    "\(home.certificatePath) certifies another key than \(home.keyPath) holds; enrol this node again with the public key that `mat keygen --show` prints"
                )
            }
            var identity = HomeIdentity(hoa: home.hoa, key: key, certificate: certificate, lastSequence: state?.sequence(of: home.hoa) ?? 0)
            identity.use = home.use
            identities.append(identity)
        }
        return identities
    }

    private static func readKey(_ path: String) throws(NodeServiceError) -> SigningKey {
        let text: String
        do throws(SecretFileError) {
            text = try SecretFile.read(path)
        } catch {
            // The other file's mode is no remedy.
            if let other = try? TextFile.read(path), KeyFile.parseCertificate(other) != nil { throw swapped(path) }
            throw NodeServiceError("\(error.remedied { $0.errno == ENOENT ? "make a key with `mat keygen --out \(path)`" : nil })")
        }
        guard let key = KeyFile.parsePrivateKey(text) else {
            if KeyFile.parseCertificate(text) != nil { throw swapped(path) }
            throw NodeServiceError("\(path) holds no private key; make one with `mat keygen --out \(path)`")
        }
        return key
    }

    private static func swapped(_ path: String) -> NodeServiceError {
        NodeServiceError("\(path) holds a certificate where the private key should be; are `key` and `certificate` swapped in matd.yaml?")
    }

    /// What is wrong with the certificates' times, as this clock has it.
    static func timeProblems(_ homes: [HomeIdentity], _ now: Now) -> [String] {
        homes.compactMap { home in
            let certificate = home.certificate
            func text(_ milliseconds: UInt64) -> String { UTCTime.text(unixMilliseconds: milliseconds) }
            let clock = "it is \(text(now.wallMilliseconds)) by this host's clock"
            if certificate.hasEnded(now) {
                return
                    "the certificate of \(home.hoa) ended at \(text(certificate.notAfter)), and \(clock); have the operator of the mapping server enrol this node's key again (`mat enrol \(home.hoa)`)"
            }
            if certificate.notBefore > now.wallMilliseconds + clockToleranceMilliseconds {
                return
                    "the certificate of \(home.hoa) begins at \(text(certificate.notBefore)), and \(clock); set the clock (`timedatectl set-ntp true`)"
            }
            return nil
        }
    }

    /// By so much may clocks differ (protocol.md section 5).
    private static let clockToleranceMilliseconds: UInt64 = 300_000

    private static func readCertificate(_ path: String) throws(NodeServiceError) -> Certificate {
        let text = try readText(path, "the operator of the IMS makes one with `mat enrol`")
        guard let certificate = KeyFile.parseCertificate(text) else {
            if KeyFile.parsePrivateKey(text) != nil {
                throw NodeServiceError(
                    "\(path) holds a private key where the certificate should be; are `key` and `certificate` swapped in matd.yaml?")
            }
            throw NodeServiceError("\(path) holds no certificate; the operator of the IMS makes one with `mat enrol`")
        }
        return certificate
    }

    private static func readText(_ path: String, _ remedy: String) throws(NodeServiceError) -> String {
        do throws(SystemError) {
            return try TextFile.read(path)
        } catch {
            throw NodeServiceError("\(error); \(remedy)")
        }
    }

    static func keep(_ certificate: Certificate, in state: StateDirectory) throws(SystemError) {
        try TextFile.replace(state.certificatePath(certificate.hoa), with: KeyFile.write(certificate), mode: 0o600)
    }
}
