import Testing

@testable import MATCommand

/// What `mat bugreport` takes out.
@Suite("Secrets in a report") struct SecretsTests {
    @Test("Keys, tokens and PEM are taken out of any text, and nothing else")
    func patterns() {
        let secrets = Secrets()
        let pem = "a\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIJ\nabc=\n-----END EC PRIVATE KEY-----\nb"
        #expect(secrets.removed(from: pem) == "a\n(removed)\nb")
        #expect(secrets.removed(from: "mat-ed25519-private: AAAA/bbb= x") == "mat-ed25519-private: (removed) x")
        #expect(secrets.removed(from: "use mat-join:ims1.example.net:AAbb-_cc now") == "use mat-join:(removed) now")
        let plain = "mat-ed25519-public: AAAA= key 4711 at 192.0.2.10, token 746f6b656e2d6964 used"
        #expect(secrets.removed(from: plain) == plain)
    }

    @Test("What stands in a file that the configuration names as secret is taken out wherever it is, the longest first")
    func known() {
        let configuration = """
            home-addresses:
              - {address: 192.0.2.10, key: /etc/matd/node.key, certificate: /etc/matd/node.cert}
            signing-key: "/etc/imsd/ims.key"
                servers: [{address: 10.0.0.5, secret-file: /etc/imsd/radius.secret}]
            etcd: {key: /etc/imsd/client.key, password-file: '/etc/imsd/etcd'}
            public-keys: [AAAA=]
            """
        #expect(
            Secrets.files(namedIn: configuration) == [
                "/etc/matd/node.key", "/etc/imsd/ims.key", "/etc/imsd/radius.secret", "/etc/imsd/client.key", "/etc/imsd/etcd",
            ])
        let secrets = Secrets(contents: [
            "# Private key of a server\nmat-ed25519-private: c2VjcmV0c2VjcmV0\n", "hunter2hunter2\n", "hunter2\n", "abc",
        ])
        #expect(
            secrets.removed(from: "x c2VjcmV0c2VjcmV0 hunter2hunter2 abc hunter2, mat-ed25519-public")
                == "x (removed) (removed) abc (removed), mat-ed25519-public")
    }

    @Test("Configurations lose comments and values that should be in files, and keep paths and public keys")
    func configuration() {
        let text = Secrets().removed(
            fromConfiguration: """
                # everything is secret here
                etcd:
                  user: ims   # and here
                  password: "two words"
                  password-file: /etc/imsd/etcd

                servers: [{address: 10.0.0.5, secret: abc, port: 1812}]
                token = x
                public-keys: [AAAA=]
                """)
        #expect(
            text == """
                etcd:
                  user: ims
                  password: (removed)
                  password-file: /etc/imsd/etcd
                servers: [{address: 10.0.0.5, secret: (removed), port: 1812}]
                token = x
                public-keys: [AAAA=]
                """)
    }

    @Test("A long section is cut at a line and says how much is missing, and what can't be had says why")
    func sections() {
        var report = BugReport(Secrets())
        report.add("long", String(repeating: String(repeating: "x", count: 99) + "\n", count: 20_000))
        report.add("table ip mat", missing: "nft is not installed")
        report.add("empty", "\n")
        let text = report.write(head: "head")
        #expect(text.hasPrefix("head\n\n1. long\n2. table ip mat\n3. empty\n\n==== 1. long\n"))
        #expect(text.contains("(9515 more lines are left out)") && text.utf8.count < BugReport.sectionOctetsMax + 1000)
        #expect(text.contains("(nft is not installed)") && text.hasSuffix("==== 3. empty\n\n(nothing)\n"))
    }
}
