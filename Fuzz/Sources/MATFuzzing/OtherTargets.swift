import IMS
import IMTKernel
import MATCore
import MATDNS
import MATNode
import MATRuntime
import MATSignal

extension FuzzTarget {
    /// Answers of DNS servers, whose identifier and question are made to fit, so that the rest is read.
    static let dns = FuzzTarget("dns", "DNS answers, read by libldns", octetsMax: 1500) { octets throws(BrokenProperty) in
        let names = [DomainName.reverse(HomeAddress(IPAddress(ipv4: 0xC000_0201))), .root]
        let types: [DNSType] = [.ims, .srv, .txt, .a, .aaaa]
        let question = DNSQuestion(names[Int(octets.first ?? 0) / 8 % names.count], types[Int(octets.first ?? 0) % types.count])
        guard let query = DNSMessage.encodeQuery(question, id: 0x1234) else { throw BrokenProperty("a question can't be written") }
        var answer = Array(octets.dropFirst())
        let questionEnd = 12 + question.name.wire.count + 4
        guard answer.count >= questionEnd, query.count >= questionEnd else { return }
        answer.replaceSubrange(0..<2, with: query[0..<2])
        answer[2] = answer[2] & 0x07 | 0x80
        answer.replaceSubrange(4..<6, with: [0, 1])
        answer.replaceSubrange(12..<questionEnd, with: query[12..<questionEnd])
        let now = MonotonicTime(nanoseconds: 1_000_000_000)
        switch DNSMessage.decodeAnswer(answer, to: question, query: query, now: now, trustsAuthentication: true) {
        case .result(.records(let records)):
            try expect(!records.rdata.isEmpty, "an answer with no records that is no absence")
            try expect(records.expires >= now && records.expires <= now + .seconds(3600), "an answer kept for longer than an hour")
            for rdata in records.rdata {
                _ = try? IMSRecord.decode(rdata)
                _ = KeyText.parse(rdata)
            }
        case .result(.absent(let absence)):
            try expect(absence.expires >= now && absence.expires <= now + .seconds(300), "an absence remembered for more than 300 s")
        case .notOurs: throw BrokenProperty("an answer to our question is not taken for ours")
        case .result(.failed), .truncated, .serverFailed: break
        }
    }

    static let rdata = FuzzTarget("rdata", "RDATA of type IMS, TXT keys, domain names", octetsMax: 1024) { octets throws(BrokenProperty) in
        if let record = try? IMSRecord.decode(octets) {
            try expect((try? IMSRecord.decode(record.encode())) == record, "an IMS record does not come back as it was written")
            try expect(record.relays.allSatisfy { !$0.endpoints.isEmpty }, "a relay without an address")
            try expect(record.keys.allSatisfy { $0.count == IMSRecord.keyOctets }, "a key that has not 32 octets")
        }
        if let key = KeyText.parse(octets) { try expect(key.count == IMSRecord.keyOctets, "a TXT key that has not 32 octets") }
        var rest = octets[...]
        if let name = try? DomainName.decode(&rest) {
            try expect(name.wire.count <= DomainName.octetsMax, "a name of \(name.wire.count) octets")
            try expect(DomainName(name.description) == name, "\(name) does not come back from its text")
            try expect(DomainName(labels: name.labels)?.wire == name.wire, "\(name) does not come back from its labels")
        }
        if let name = DomainName(String(decoding: octets, as: UTF8.self)) {
            try expect(DomainName(name.description) == name, "\(name) does not come back from its text")
        }
    }

    static let imsConfiguration = FuzzTarget("imsd-yaml", "imsd's configuration", octetsMax: 4096) { octets throws(BrokenProperty) in
        do throws(ConfigurationError) {
            let configuration = try IMSConfiguration(parsing: String(decoding: octets, as: UTF8.self), file: "imsd.yaml")
            try? check(configuration)
        } catch {
            return
        }
    }

    private static func check(_ configuration: IMSConfiguration) throws(BrokenProperty) {
        try expect(!configuration.served.isEmpty, "a configuration that serves nothing was taken")
    }

    static let nodeConfiguration = FuzzTarget("matd-yaml", "matd's configuration", octetsMax: 4096) { octets throws(BrokenProperty) in
        _ = try? NodeConfiguration(parsing: String(decoding: octets, as: UTF8.self), file: "matd.yaml")
    }

    static let control = FuzzTarget("control", "requests and responses of the control socket", octetsMax: 4096) {
        octets throws(BrokenProperty) in
        if let request = try? ControlRequest(line: octets, peerUID: 0) { _ = try? request.arguments(as: JSONValue.self) }
        _ = try? ControlJSON.decode(ControlAnswer<JSONValue>.self, from: octets)
        guard let value = try? JSONValue.parse(octets) else { return }
        let written = value.write()
        try expect(!written.contains(10), "a value is written on more than one line")
        guard let again = try? JSONValue.parse(written) else { throw BrokenProperty("what was written is not JSON") }
        // A fraction beyond 2^53 is written as 9.223372036854754e+18, which is read as a whole number: as much as can be told of it, but in
        // other words. From then on nothing changes.
        let settled = again.write()
        let once = (try? JSONValue.parse(settled))?.write()
        try expect(
            once == settled,
            "a value changes each time it is written and read: \(String(decoding: settled, as: UTF8.self)) became \(String(decoding: once ?? [], as: UTF8.self))"
        )
    }

    static let transfer = FuzzTarget("transfer", "lines of `mat ims export` and `import`", octetsMax: 4096) { octets throws(BrokenProperty) in
        guard let line = try? TransferLine(parsing: octets) else { return }
        let written = line.json.write()
        guard let again = try? TransferLine(parsing: written) else { throw BrokenProperty("a line that is written can't be read") }
        try expect(again.json == line.json, "a line changes when it is written and read")
    }

    static let keyFiles = FuzzTarget("keys", "key files, base64, resolv.conf", octetsMax: 1024) { octets throws(BrokenProperty) in
        let text = String(decoding: octets, as: UTF8.self)
        if let key = KeyFile.parsePrivateKey(text) {
            try expect(KeyFile.parsePrivateKey(KeyFile.write(key))?.seed == key.seed, "a private key does not come back")
        }
        if let certificate = KeyFile.parseCertificate(text) {
            try expect(KeyFile.parseCertificate(KeyFile.write(certificate)) == certificate, "a certificate does not come back")
        }
        if let decoded = Base64.parse(octets) { try expect(Array(Base64.write(decoded).utf8) == octets, "base64 that is not what is written") }
        try expect(Base64.parse(Base64.write(octets).utf8) == octets, "base64 does not come back")
        _ = KeyFile.parsePublicKey(text)
        _ = ResolverConfiguration.parse(resolvConf: text)
        try expect(text.printable.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7F }, "a printable text with control characters")
        if let prefix = IPPrefix(text) { try expect(IPPrefix(prefix.description) == prefix, "\(prefix) does not come back") }
    }

    static let netlink = FuzzTarget("netlink", "answers and events of the kernel", octetsMax: 2048) { octets throws(BrokenProperty) in
        _ = KernelReplies.read(octets)
    }

    static let packets = FuzzTarget("packets", "packets that are held while their peer is found", octetsMax: 2048) {
        octets throws(BrokenProperty) in
        if let broken = KernelReplies.readPacket(octets) { throw BrokenProperty(broken) }
    }
}
