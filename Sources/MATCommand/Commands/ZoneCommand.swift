import ArgumentParser
import IMS
import MATCore
import MATDNS
import MATRuntime
import MATSignal

struct ZoneCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "zone", abstract: "Write the reverse zone's lines that make an IMS findable.",
        discussion: """
            Prefixes, port, keys and relays come from imsd's configuration file, or from --prefix, --key and --relay. Wildcards cover all addresses \
            of a prefix, except those at whose names the zone holds other records, such as PTR: name these with --hoa. The lines stand between two \
            comments with the server's name: after a change of keys, addresses or prefixes they take the place of the earlier block, as --into does it.
            """)

    enum Form: String, CaseIterable, ExpressibleByArgument {
        case ims, srv, both

        var writerForm: ZoneWriter.Form {
            switch self {
            case .ims: .generic
            case .srv: .service
            case .both: .both
            }
        }
    }

    @Option(help: ArgumentHelp("imsd's configuration file.", valueName: "file"))
    var config: String?

    @Option(
        help: ArgumentHelp("A home prefix that the IMS serves, without --config.", valueName: "prefix"),
        transform: reading(.prefix))
    var prefix: [IPPrefix] = []

    @Option(help: ArgumentHelp("A public key of the IMS, without --config.", valueName: "base64"), transform: reading(.publicKey))
    var key: [PublicKey] = []

    @Option(
        help: ArgumentHelp("The IMS's own name, which must have A or AAAA records.", valueName: "name"),
        transform: reading(.hostName))
    var target: DomainName

    @Option(
        help: ArgumentHelp("An address of the IMS, to go into the record and save nodes a look-up.", valueName: "address"),
        transform: reading(.address))
    var address: [IPAddress] = []

    @Option(
        help: ArgumentHelp(
            "A relay that serves the prefixes, with all its addresses behind commas (default: the configuration's).",
            valueName: "address[:port],..."),
        transform: reading(.relay))
    var relay: [RelayHost] = []

    @Option(help: "The IMS's port (default: the configuration's, or 6288).", transform: reading(.port))
    var port: UInt16?

    @Option(help: ArgumentHelp("Lower is tried first.", valueName: "number"), transform: reading(.int(in: 0...65_535)))
    var priority = 10

    @Option(
        help: ArgumentHelp("Share among servers of one priority.", valueName: "number"), transform: reading(.int(in: 0...65_535)))
    var weight = 5

    @Option(help: "TYPE65400 records (ims), SRV with TXT for servers that can't serve those (srv), or both.")
    var form: Form = .both

    @Option(
        help: ArgumentHelp("A home address at whose name the zone holds other records.", valueName: "hoa"),
        transform: reading(.homeAddress))
    var hoa: [HomeAddress] = []

    @Option(
        help: ArgumentHelp("Only the lines of this zone, such as 2.0.192.in-addr.arpa.", valueName: "name"),
        transform: reading(.domainName))
    var zone: DomainName?

    @Option(
        help: ArgumentHelp(
            "The zone that was delegated for a prefix longer than /24 (RFC 2317), such as 64/26.2.0.192.in-addr.arpa: addresses are named in it by their last octet.",
            valueName: "name"),
        transform: reading(.domainName))
    var origin: DomainName?

    @Flag(help: "With --origin: instead, the CNAME lines that the zone above needs, for whoever keeps it.")
    var parent = false

    /// RFC 2181 section 8; nodes cap it at 3600 anyway.
    @Option(
        help: ArgumentHelp("Seconds that resolvers may keep the records.", valueName: "seconds"),
        transform: reading(.int(in: 0...0x7FFF_FFFF)))
    var ttl = 300

    @Option(
        help: ArgumentHelp(
            "Write the lines into this zone file, in the place of this server's earlier ones or at its end, and print nothing.", valueName: "file"))
    var into: String?

    func validate() throws {
        if config != nil {
            guard prefix.isEmpty, key.isEmpty else { throw ValidationError("Give --config, or --prefix and --key, not both") }
        } else {
            guard !prefix.isEmpty, !key.isEmpty else { throw ValidationError("Give --config FILE, or --prefix and --key") }
        }
        guard relay.isEmpty || form != .srv else {
            throw ValidationError("SRV and TXT have no place for relays; leave out --relay, or write TYPE65400 records too")
        }
        guard relay.count <= IMSRecord.relaysMax else { throw ValidationError("--relay is given at most \(IMSRecord.relaysMax) times") }
        guard origin == nil || zone == nil && hoa.isEmpty else {
            throw ValidationError("In the zone of --origin each address has lines of its own; leave out --zone and --hoa")
        }
        guard !parent || origin != nil && into == nil else { throw ValidationError("--parent goes with --origin, and without --into") }
    }

    func run() throws {
        var (prefixes, keys, port, relays) = (prefix, key, port ?? SignalPort.ims, relay)
        if let config {
            let configuration = try Self.read(config)
            prefixes = configuration.served.map(\.prefix)
            keys = try Self.keys(of: configuration)
            port = self.port ?? configuration.port
            if relays.isEmpty { relays = configuration.relays }
        }
        for home in hoa where !prefixes.contains(where: { $0.contains(home.address) }) {
            throw CommandFailure("\(home) is in none of the prefixes (\(prefixes.map(\.description).joined(separator: ", ")))")
        }
        let record = IMSRecord(
            priority: UInt16(clamping: priority), weight: UInt16(clamping: weight), port: port, target: target, keys: keys.map(\.octets),
            addresses: address,
            relays: relays)
        let writer = ZoneWriter(servers: [record], form: form.writerForm, ttl: UInt32(clamping: ttl))
        let lines: [String]
        if let origin {
            let classless = ClasslessZone(origin: origin)
            let own = try Self.prefixes(prefixes, in: classless)
            guard !parent else { return print(classless.aliases(of: own, ttl: UInt32(clamping: ttl)).joined(separator: "\n")) }
            lines = writer.lines(prefixes: own, in: classless)
        } else {
            lines = writer.lines(prefixes: prefixes, existing: hoa, zone: zone)
        }
        if lines.isEmpty { throw CommandFailure("no line of these prefixes is within \(zone?.description ?? "the zone")") }
        let block = ZoneBlock(target: target, lines: lines)
        if let into { try Self.write(block, into: into) } else { print(block.written.joined(separator: "\n")) }
    }

    /// Those prefixes of a server that a zone can be for.
    private static func prefixes(_ prefixes: [IPPrefix], in zone: ClasslessZone) throws(CommandFailure) -> [IPPrefix] {
        let small = prefixes.filter { $0.family == .ipv4 && $0.familyLength >= ClasslessZone.lengthMin }
        let own = zone.own(small)
        guard !own.isEmpty else {
            throw CommandFailure(
                "--origin is for IPv4 prefixes of /24 or longer, and none of \(prefixes.map(\.description).joined(separator: ", ")) is one")
        }
        guard zone.canHold(own) else {
            throw CommandFailure(
                "\(own.map(\.description).joined(separator: ", ")) are in several /24, so addresses would have the same names in \(zone.origin); name one of them by --prefix, with --key instead of --config"
            )
        }
        return own
    }

    private static func write(_ block: ZoneBlock, into path: String) throws(CommandFailure) {
        func reading<Result>(_ body: () throws(SystemError) -> Result) throws(CommandFailure) -> Result {
            do throws(SystemError) { return try body() } catch { throw CommandFailure("\(error)") }
        }
        let octets = try reading { () throws(SystemError) in try TextFile.octets(of: path, max: zoneOctetsMax) }
        guard let text = String(validating: octets, as: UTF8.self) else {
            throw CommandFailure("\(path) is not UTF-8, and would be damaged: convert it first (iconv -f latin1 -t utf-8)")
        }
        guard let replaced = block.replaced(in: text) else {
            throw CommandFailure("\(path): \"\(block.begin)\" stands twice, or has no \"\(block.end)\" behind it; mend that by hand")
        }
        try reading { () throws(SystemError) in try TextFile.replace(path, with: replaced.text, .kept(new: 0o644)) }
        StandardError.write(
            "mat: \(replaced.wasThere ? "replaced" : "added") the lines of \(block.target) in \(path); raise the zone's serial and reload it")
        for line in replaced.strays {
            StandardError.write(
                "mat: \(path):\(line): this line names a mapping server, outside of a block of `mat zone`; take it out if it is of an earlier one")
        }
    }

    /// A /16 with a PTR for each address has less.
    private static let zoneOctetsMax = 1 << 26

    private static func read(_ path: String) throws(CommandFailure) -> IMSConfiguration {
        do throws(ConfigurationError) {
            return try IMSConfiguration(path: path)
        } catch {
            throw CommandFailure(error.description)
        }
    }

    /// The signing key's public half first, then those that count beside it.
    private static func keys(of configuration: IMSConfiguration) throws(CommandFailure) -> [PublicKey] {
        do throws(IMSServerError) {
            let own = try configuration.signingKey().map { [$0.publicKey] } ?? []
            return own + (configuration.publicKeys + configuration.previousKeys).filter { !own.contains($0) }
        } catch {
            throw CommandFailure(error.description)
        }
    }
}
