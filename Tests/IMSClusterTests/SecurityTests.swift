import Glibc
import IMS
import IMSCore
import MATRuntime
import Testing

@testable import IMSCluster

/// Certificates of a test's own authority, made by openssl.
private struct TestAuthority {
    let directory: String

    init(in directory: String) throws {
        self.directory = directory
        try openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
            "/CN=test authority",
            "-keyout", "\(directory)/ca.key", "-out", "\(directory)/ca.pem")
        try issue("server", names: "IP:127.0.0.1,DNS:etcd.test", usage: "serverAuth,clientAuth")
        try issue("named", names: "DNS:etcd.test", usage: "serverAuth,clientAuth")
        try issue("client", names: "DNS:imsd.test", usage: "clientAuth")
    }

    private func issue(_ name: String, names: String, usage: String) throws {
        try TextFile.replace(
            "\(directory)/\(name).ext", with: "subjectAltName=\(names)\nextendedKeyUsage=\(usage)\n", mode: 0o600)
        try openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=\(name)",
            "-keyout", "\(directory)/\(name).key", "-out", "\(directory)/\(name).csr")
        try openssl(
            "x509", "-req", "-days", "2", "-CA", "\(directory)/ca.pem", "-CAkey", "\(directory)/ca.key", "-CAcreateserial",
            "-extfile", "\(directory)/\(name).ext", "-in", "\(directory)/\(name).csr", "-out", "\(directory)/\(name).pem")
    }

    private func openssl(_ arguments: String...) throws {
        let program = Program(try #require(Program.installed("openssl")), arguments, log: "\(directory)/openssl.log")
        try program.start()
        let status = program.wait()
        try #require(status == 0, "openssl \(arguments): \((try? TextFile.read("\(directory)/openssl.log")) ?? "")")
    }
}

@Suite(
    "etcd with certificates and passwords", .serialized,
    .enabled(
        if: EtcdMembers.obstacle == nil && Program.installed("openssl") != nil,
        "needs etcd and openssl; deploy/install-packages installs them"))
struct SecurityTests {
    @Test("With certificates on both sides all is as without; with the wrong ones nothing is written, and the reason is told")
    func certificates() throws {
        let directory = try TemporaryDirectory()
        let authority = try TestAuthority(in: directory.path)
        let etcd = try EtcdMembers(["127.0.0.1"], tls: EtcdMembers.TLS(directory: directory.path), in: directory)
        var configuration = etcd.configuration()
        configuration.authorityPath = "\(authority.directory)/ca.pem"
        configuration.certificatePath = "\(authority.directory)/client.pem"
        configuration.keyPath = "\(authority.directory)/client.key"
        let instance = try TestInstance(configuration)
        #expect(eventually { instance.told.hasLoaded })
        let node = try TestNode("192.0.2.1")
        #expect(instance.commit(1, StoreChange(mapping: try node.stored(1))) == .durable)

        var byName = configuration
        byName.serverName = "etcd.test"
        let named = try TestInstance(byName)
        #expect(eventually { named.told.hasLoaded && named.told.loaded.count == 1 })

        func stranger(_ change: (inout EtcdConfiguration) -> Void) throws -> TestInstance {
            var other = configuration
            change(&other)
            return try TestInstance(other)
        }
        let otherDirectory = try TemporaryDirectory()
        let other = try TestAuthority(in: otherDirectory.path)
        let strangers = [
            try stranger { ($0.certificatePath, $0.keyPath) = (nil, nil) },
            try stranger { $0.authorityPath = "\(other.directory)/ca.pem" },
            try stranger { ($0.authorityPath, $0.certificatePath, $0.keyPath) = (nil, nil, nil) },
        ]
        #expect(eventually { strangers.allSatisfy { $0.told.complaint != nil } })
        #expect(strangers[0].told.complaint?.contains("see `certificate`") == true, "\(strangers[0].told.complaint ?? "")")
        #expect(
            strangers[1].told.complaint?.contains("not of an authority in `ca`") == true, "\(strangers[1].told.complaint ?? "")")
        #expect(!strangers.contains { $0.told.hasLoaded })
    }

    @Test("A member whose certificate has neither the address nor the configured name is not talked to")
    func names() throws {
        let directory = try TemporaryDirectory()
        let authority = try TestAuthority(in: directory.path)
        let etcd = try EtcdMembers(["127.0.0.1"], tls: EtcdMembers.TLS(directory: directory.path, name: "named"), in: directory)
        var configuration = etcd.configuration()
        configuration.authorityPath = "\(authority.directory)/ca.pem"
        configuration.certificatePath = "\(authority.directory)/client.pem"
        configuration.keyPath = "\(authority.directory)/client.key"
        configuration.serverName = "etcd.test"
        let right = try TestInstance(configuration)
        #expect(eventually { right.told.hasLoaded })
        let wrong = try ["other.test", nil].map { name in
            configuration.serverName = name
            return try TestInstance(configuration)
        }
        #expect(eventually { wrong.allSatisfy { $0.told.complaint?.contains("see `server-name`") == true } })
        #expect(!wrong.contains { $0.told.hasLoaded })
    }

    @Test("--check names missing and unusable files")
    func check() throws {
        let directory = try TemporaryDirectory()
        let authority = try TestAuthority(in: directory.path)
        var configuration = EtcdConfiguration()
        configuration.endpoints = [EtcdConfiguration.Endpoint(host: "127.0.0.1")]
        configuration.authorityPath = "\(authority.directory)/ca.pem"
        configuration.certificatePath = "\(authority.directory)/client.pem"
        configuration.keyPath = "\(authority.directory)/client.key"
        try configuration.check()
        func problem(_ change: (inout EtcdConfiguration) -> Void) -> String {
            var other = configuration
            change(&other)
            do throws(StoreError) { try other.check() } catch { return error.description }
            return "none"
        }
        #expect(problem { $0.authorityPath = "/nonexistent.pem" }.contains("etcd.ca: /nonexistent.pem"))
        #expect(problem { $0.keyPath = "\(authority.directory)/ca.pem" }.contains("etcd.key"))
        #expect(problem { $0.keyPath = "\(authority.directory)/server.key" }.contains("belong together"))
        #expect(problem { $0.passwordPath = "/nonexistent" }.contains("etcd.password-file"))
        try TextFile.replace("\(directory.path)/password", with: "secret\n", mode: 0o644)
        #expect(problem { $0.passwordPath = "\(directory.path)/password" }.contains("chmod 600"))
    }

    @Test(
        "A user with a password, who may use no more than the prefix",
        .enabled(if: Program.installed("etcdctl") != nil, "etcdctl is not installed; deploy/install-packages installs it"))
    func password() throws {
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let etcdctl = try #require(Program.installed("etcdctl"))
        func control(_ arguments: String...) throws {
            let program = Program(
                etcdctl, ["--endpoints", etcd.endpoints[0].description] + arguments, log: "\(directory.path)/etcdctl.log")
            try program.start()
            let status = program.wait()
            try #require(status == 0, "etcdctl \(arguments): \((try? TextFile.read("\(directory.path)/etcdctl.log")) ?? "")")
        }
        try control("user", "add", "root:rootpassword")
        try control("role", "add", "imsd")
        try control("role", "grant-permission", "--prefix=true", "imsd", "readwrite", "/mat/ims/")
        try control("user", "add", "imsd:secret")
        try control("user", "grant-role", "imsd", "imsd")
        try control("auth", "enable")
        try TextFile.replace("\(directory.path)/password", with: "secret\n", mode: 0o600)
        var configuration = etcd.configuration()
        configuration.user = "imsd"
        configuration.passwordPath = "\(directory.path)/password"
        let instance = try TestInstance(configuration)
        #expect(eventually { instance.told.hasLoaded })
        let node = try TestNode("192.0.2.1")
        #expect(instance.commit(1, StoreChange(mapping: try node.stored(1))) == .durable)
        instance.store.share([.remembered(try node.certified(1), isConfirmed: true)])
        #expect(eventually { !instance.told.shared.isEmpty }, "\(instance.told.failures)")

        let anonymous = try TestInstance(etcd.configuration())
        #expect(eventually { anonymous.told.complaint?.contains("etcd") == true })
        try TextFile.replace("\(directory.path)/password", with: "wrong\n", mode: 0o600)
        let wrong = try TestInstance(configuration)
        #expect(eventually { wrong.told.complaint?.contains("password") == true }, "\(wrong.told.complaint ?? "")")
        #expect(!anonymous.told.hasLoaded && !wrong.told.hasLoaded)
    }
}

extension Told {
    /// Why changes are not taken, as it was told last.
    var complaint: String? {
        all.compactMap { if case .unavailable(let reason) = $0 { reason } else { nil } }.last
    }
}
