import Glibc
import IMS
import NIOSSL

import enum MATRuntime.SecretFile
import enum MATRuntime.SecretFileError

// The files that the `etcd` section names: certificates, keys, password.

extension IMSConfiguration {
    /// The store that the configuration names: the file, or the cluster's.
    public func openStore() throws(StoreError) -> any MappingStoring {
        guard let etcd else { return try MappingStore(path: storePath) }
        return try EtcdStore(etcd)
    }
}

extension EtcdConfiguration {
    /// What `imsd --check` looks at: whether the files are there and hold what they should. Asks no server.
    public func check() throws(StoreError) {
        _ = try tlsContext()
        _ = try password()
    }

    func password() throws(StoreError) -> String? {
        guard let passwordPath else { return nil }
        let text: String
        do throws(SecretFileError) {
            text = try SecretFile.read(passwordPath)
        } catch {
            throw StoreError(
                "etcd.password-file: \(error.remedied { _ in "write the password into it, and give it to the user that imsd runs as" })")
        }
        guard let line = text.split(whereSeparator: \.isNewline).first, !line.isEmpty else {
            throw StoreError("etcd.password-file: \(passwordPath) is empty; write the password into it")
        }
        return String(line)
    }

    /// - Returns: `nil` if the connection is not encrypted.
    func tlsContext() throws(StoreError) -> NIOSSLContext? {
        guard let authorityPath else { return nil }
        var tls = TLSConfiguration.makeClientConfiguration()
        tls.minimumTLSVersion = .tlsv12
        tls.applicationProtocols = ["h2"]
        tls.trustRoots = .certificates(try certificates(authorityPath, "ca"))
        if let certificatePath, let keyPath {
            tls.certificateChain = try certificates(certificatePath, "certificate").map { .certificate($0) }
            do {
                tls.privateKey = .privateKey(try NIOSSLPrivateKey(file: keyPath, format: .pem))
            } catch {
                throw StoreError("etcd.key: \(keyPath) holds no private key in PEM form, or can't be read: \(error)")
            }
        }
        do {
            return try NIOSSLContext(configuration: tls)
        } catch {
            throw StoreError("etcd: certificate and key can't be used: \(error); do they belong together?")
        }
    }

    private func certificates(_ path: String, _ key: String) throws(StoreError) -> [NIOSSLCertificate] {
        do {
            let found = try NIOSSLCertificate.fromPEMFile(path)
            if !found.isEmpty { return found }
        } catch {
            throw StoreError("etcd.\(key): \(path) holds no certificate in PEM form, or can't be read: \(error)")
        }
        throw StoreError("etcd.\(key): \(path) holds no certificate")
    }
}
