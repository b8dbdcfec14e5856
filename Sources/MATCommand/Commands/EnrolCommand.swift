import ArgumentParser
import MATControl
import MATCore
import MATDNS
import MATRuntime
import MATSignal

struct EnrolCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "enrol", abstract: "Give a node its home address: prints a certificate for its public key.",
        discussion: """
            To be run where imsd and its signing key are. The text goes into the file that matd.yaml names as the certificate. \
            A new certificate for a home address replaces the one before: the IMS takes registrations under the newest only. So an \
            address that another key has, or that overlaps another's, is refused with a sentence that says whose it is, unless \
            --force is given. Renewals by the IMS are for as long as the certificate was. DNS servers are those that imsd.yaml names, else \
            matd.yaml, else the system's.
            """)

    @Argument(help: "The home address, or a mobile network's home prefix such as 192.0.2.16/28.", transform: reading(.prefix))
    var home: IPPrefix

    @Option(
        help: ArgumentHelp("The node's public key, as `mat keygen` prints it.", valueName: "base64"),
        transform: reading(.publicKey))
    var publicKey: PublicKey

    @Option(
        help: ArgumentHelp(
            "How long the certificate is valid, such as 365d (default: imsd's certificate-lifetime).", valueName: "duration"),
        transform: reading(.duration(in: .seconds(60) ... .seconds(3650 * 86_400))))
    var lifetime: Duration?

    @Flag(
        help:
            "Enrol it even if that takes the address, or a part of it, from a node that has it now, or takes back what was issued while the clock was far ahead."
    )
    var force = false

    @Flag(help: "The IMS does not renew the certificate: its node is a guest until it ends.")
    var noRenewal = false

    @OptionGroup var control: IMSControl
    @OptionGroup var output: OutputOptions

    func validate() throws {
        guard home.address.isUsableUnicast else { throw ValidationError("\(home) can't be a home address: it is not a global unicast address") }
    }

    func run() throws {
        if !force { try refuseUnnamed() }
        let request = EnrolRequest(
            hoa: "\(home.address)", prefixLength: Int64(home.familyLength), publicKey: KeyFile.write(publicKey),
            lifetimeSeconds: lifetime?.components.seconds, force: force ? true : nil,
            renewal: noRenewal ? false : nil)
        let answer = try control.request(
            .enrol, request, as: EnrolmentReport.self, unanswered: "imsd may have issued a certificate all the same: see `mat ims show`")
        let certificate = try Self.certificate(in: answer, for: home, publicKey)
        try output.print(answer) { _ in KeyFile.write(certificate) }
    }

    /// A network whose certificate nobody would believe: addresses of it are aliases into a zone that is delegated for less than a /24
    /// (RFC 2317), and its keys are looked up in the zone above, which names none of this server's.
    private func refuseUnnamed() throws(CommandFailure) {
        guard home.isClasslessNetwork else { return }
        let dns = DNSChoice(configuration: DaemonFile.imsConfiguration.path, DaemonFile.nodeConfiguration.path)
        guard let names = NetworkNames.find(home, by: dns), let alias = names.alias, let keys = names.keys else { return }
        let own = Set(try control.request(.status, as: IMSStatusReport.self).keys.map(\.publicKey))
        guard own.isDisjoint(with: keys.map { KeyFile.write($0) }) else { return }
        throw CommandFailure(
            "\(home) is in a zone that is delegated for less than a /24: \(DomainName.reverse(home.address)) is an alias of \(alias). The keys for a network's certificate are looked up at \(DomainName.reverse(home)), which has none of this server's, so nobody would believe it; enrol its hosts one by one, or --force if that name will have them. Asked: \(dns.asked)\(dns.doubt.map { "; \($0)" } ?? "")"
        )
    }

    /// What is printed goes straight into a file, so it is looked at before.
    static func certificate(in answer: EnrolmentReport, for home: IPPrefix, _ key: PublicKey) throws(CommandFailure) -> Certificate {
        guard let octets = Base64.parse(answer.certificate.utf8), let certificate = try? Certificate(octets: octets) else {
            throw CommandFailure("imsd's answer holds no certificate; are mat and imsd of one version?")
        }
        guard certificate.prefix == home, certificate.nodeKey == key else {
            throw CommandFailure("imsd certified \(certificate.prefix) for another address or key than was asked for")
        }
        return certificate
    }
}
