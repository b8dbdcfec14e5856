import ArgumentParser
import Glibc
import IMS
import MATControl
import MATRuntime
import MATSignal
import MappingMemory

extension IMSCommand {
    struct Revoke: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take a home address from its node, at once: its certificates are refused and its mapping is withdrawn.",
            discussion: """
                Done when it is durable; subscribers are told at the same time. To give the home address out again, enrol it anew. Where the \
                signing key is kept off the server, give it with --signing-key: it is used here and goes nowhere.
                """)

        @Argument(help: "The home address, or a mobile network's home prefix.", transform: reading(.prefix))
        var home: IPPrefix?

        @Option(
            help: ArgumentHelp("Revoke the home address whose newest certificate has this id, as `mat ims show` prints it.", valueName: "id"))
        var certificate: String?

        @Option(
            help: ArgumentHelp(
                "Revoke all whose certificates were issued before this date (2026-11-21, or with a time: 2026-11-21T10:00:00Z).",
                valueName: "date"),
            transform: { text in
                guard let date = DateText.parse(text) else {
                    throw ValidationError("\"\(text)\" is no date; write it as in 2026-11-21 or 2026-11-21T10:00:00Z")
                }
                return date
            })
        var issuedBefore: UInt64?

        @Option(help: ArgumentHelp("With --issued-before: only within this prefix.", valueName: "prefix"), transform: reading(.prefix))
        var within: IPPrefix?

        @Flag(help: "With --issued-before: revoke nothing, and say what would be.")
        var dryRun = false

        @Flag(help: "With --issued-before: do not ask first.")
        var yes = false

        @Flag(help: "Revoke a home address of which imsd knows nothing: its certificate was issued elsewhere and never used.")
        var unknown = false

        @Option(help: ArgumentHelp("The private key that signs certificates, if it is not on the server.", valueName: "file"))
        var signingKey: String?

        @OptionGroup var control: IMSControl
        @OptionGroup var output: OutputOptions

        func validate() throws {
            let ways = [home != nil, certificate != nil, issuedBefore != nil].filter { $0 }.count
            guard ways == 1 else { throw ValidationError("Give one of: a home address, --certificate ID, --issued-before DATE") }
            guard certificate.map({ $0.utf8.count == 16 && $0.allSatisfy(\.isHexDigit) }) ?? true else {
                throw ValidationError("--certificate takes the 16 hexadecimal digits that `mat ims show` prints")
            }
            guard within == nil || issuedBefore != nil else { throw ValidationError("--within goes with --issued-before") }
            guard issuedBefore != nil || !(dryRun || yes) else { throw ValidationError("--dry-run and --yes go with --issued-before") }
            guard signingKey == nil || home != nil else { throw ValidationError("--signing-key goes with one home address") }
        }

        func run() throws {
            var request = try request()
            if let issuedBefore {
                var question = request
                (question.beforeMilliseconds, question.wouldBeforeMilliseconds) = (nil, issuedBefore)
                let found = dryRun || !yes ? try all(question) : RevocationReport()
                if dryRun { return try output.print(found) { IMSText.revocation(found, isTrial: true, $0) } }
                if !yes, !found.revoked.isEmpty { try confirm(found) }
            }
            request.beforeMilliseconds = issuedBefore
            let done = try all(request)
            try output.print(done) { IMSText.revocation(done, $0) }
        }

        /// All parts of an answer.
        private func all(_ request: RevokeRequest<JSONValue>) throws(CommandFailure) -> RevocationReport {
            var (sum, request) = (RevocationReport(), request)
            while true {
                let answer = try control.request(
                    .revoke, request, as: RevocationReport.self, timeout: .seconds(60), unanswered: "imsd may still revoke: see `mat ims enrolled`")
                sum.revoked += answer.revoked
                sum.already += answer.already
                guard let next = answer.next else { return sum }
                request.after = next
            }
        }

        /// One typed date may take a whole fleet off the air.
        private func confirm(_ found: RevocationReport) throws(CommandFailure) {
            let homes = Quantity.count(Int64(found.revoked.count), "home address", "es")
            let text = "this takes \(homes) from their nodes at once, from \(found.revoked.first ?? "") to \(found.revoked.last ?? "")"
            guard isatty(STDIN_FILENO) == 1 else {
                throw CommandFailure("\(text); say --yes to have it done without being asked, or --dry-run to see which")
            }
            StandardError.write("mat: \(text). Revoke them? [y/N]")
            guard ["y", "yes"].contains((readLine() ?? "").lowercased()) else { throw CommandFailure("nothing was revoked") }
        }

        private func request() throws(CommandFailure) -> RevokeRequest<JSONValue> {
            var request = RevokeRequest<JSONValue>()
            request.unknown = unknown
            request.certificate = certificate
            request.within = within.map { "\($0)" }
            guard let home else { return request }
            request.prefix = "\(home)"
            if let signingKey {
                let key = try PrivateKeyFile.read(signingKey)
                guard let tombstone = StoredMapping.revocation(of: home, signedBy: key, now: SystemClock.now()) else {
                    throw CommandFailure("the crypto library does not sign; this should not happen")
                }
                request.tombstone = TransferLine.mapping(tombstone).json
            }
            return request
        }
    }
}
