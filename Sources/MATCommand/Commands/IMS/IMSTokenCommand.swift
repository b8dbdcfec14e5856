import ArgumentParser
import MATControl
import MATRuntime
import MATSignal

extension IMSCommand {
    struct Token: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Tokens, by which nodes join with one command: make, list, revoke.", subcommands: [Create.self, List.self, Revoke.self])

        struct Create: ParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Make a token, for `mat join`.",
                discussion: """
                    It is a secret: who has it gets an address. It is printed this once. Give --prefix or --hoa for each family that nodes \
                    shall have; a token for one address gives it to whoever joins last.
                    """)

            @Option(
                help: ArgumentHelp("Nodes get an address of this prefix. Once for each family.", valueName: "prefix"), transform: reading(.prefix))
            var prefix: [IPPrefix] = []

            @Option(help: ArgumentHelp("The node gets this address. Once for each family.", valueName: "address"), transform: reading(.homeAddress))
            var hoa: [HomeAddress] = []

            @Option(help: "How many nodes may join with it (default: any number).")
            var uses: Int64?

            @Option(
                help: ArgumentHelp("How long it can be used, such as 7d.", valueName: "duration"),
                transform: reading(.duration(in: .seconds(60) ... .seconds(3650 * 86_400))))
            var expires: Duration?

            @Option(
                help: ArgumentHelp("How long certificates are valid (default: imsd's certificate-lifetime).", valueName: "duration"),
                transform: reading(.duration(in: .seconds(60) ... .seconds(3650 * 86_400))))
            var certificateLifetime: Duration?

            @Flag(help: "Certificates are not renewed: nodes are guests for as long as one lasts.")
            var noRenewal = false

            @Option(
                help: ArgumentHelp("The name or address at which nodes reach this server (default: imsd.yaml's public-addresses).", valueName: "host")
            )
            var host: String?

            @Flag(help: "Also as a QR code, for a camera.")
            var qr = false

            @OptionGroup var control: IMSControl
            @OptionGroup var output: OutputOptions

            func validate() throws {
                guard !prefix.isEmpty || !hoa.isEmpty else { throw ValidationError("Give --prefix or --hoa") }
                guard host.map(JoinToken.isHost) ?? true else {
                    throw ValidationError(
                        "--host takes the name or address at which nodes reach this server, without a port, such as ims1.example.net: \"\(host ?? "")\" is neither"
                    )
                }
            }

            func run() throws {
                let request = TokenRequest(
                    gives: prefix.map { "\($0)" } + hoa.map { "\($0)" }, host: host, uses: uses, expiresInSeconds: expires?.components.seconds,
                    certificateSeconds: certificateLifetime?.components.seconds, isRenewed: noRenewal ? false : nil)
                let made = try control.request(
                    .tokenCreate, request, as: TokenReport.self, unanswered: "imsd may have made a token all the same: see `mat ims token list`")
                let code = qr ? try QRText.make(made.token) : ""
                try output.print(made) { _ in "\(made.token)\n\(code)" }
            }
        }

        struct List: ParsableCommand {
            static let configuration = CommandConfiguration(abstract: "List tokens: what they give, to how many, until when. Never their secrets.")

            @OptionGroup var control: IMSControl
            @OptionGroup var output: OutputOptions

            func run() throws {
                let list = try control.request(.tokenList, as: TokensReport.self)
                try output.print(list) { TokensText.tokens(list.tokens, now: SystemClock.now(), $0) }
            }
        }

        struct Revoke: ParsableCommand {
            static let configuration = CommandConfiguration(
                abstract: "Let nobody new join with a token. Who has joined keeps the address: see `mat ims revoke`.")

            @Argument(
                help: "The token's id, as `mat ims token list` shows it.",
                transform: { text in
                    guard let id = TokenID(text) else { throw ValidationError("\"\(text)\" is no token id: it has 16 hexadecimal digits") }
                    return id
                })
            var id: TokenID

            @OptionGroup var control: IMSControl
            @OptionGroup var output: OutputOptions

            func run() throws {
                let revoked = try control.request(
                    .tokenRevoke, TokenRevokeRequest(id: "\(id)"), as: TokensReport.self,
                    unanswered: "it may be revoked all the same: see `mat ims token list`")
                try output.print(revoked) { TokensText.tokens(revoked.tokens, now: SystemClock.now(), $0) }
            }
        }
    }

    struct Enrolled: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List the home addresses that were given: to which key, when, by what, until when, last seen.",
            discussion: "A page at a time: --after with the last home address shown gives the next; --all goes through all.")

        @Option(help: "The most to list at a time.")
        var count = 100

        @Option(help: ArgumentHelp("Begin behind this home address or prefix.", valueName: "hoa"), transform: reading(.prefix))
        var after: IPPrefix?

        @Flag(help: "Go on until the end.")
        var all = false

        @OptionGroup var control: IMSControl
        @OptionGroup var output: OutputOptions

        func validate() throws {
            guard (1...1000).contains(count) else { throw ValidationError("--count is from 1 to 1000") }
        }

        func run() throws {
            var report = EnrolledReport(homes: [], next: after.map { "\($0)" })
            repeat {
                let request = EnrolledRequest(after: report.next, count: all ? 1000 : count)
                let page = try control.request(.enrolled, request, as: EnrolledReport.self)
                report.homes += page.homes
                report.next = page.next
            } while all && report.next != nil
            try output.print(report) { TokensText.enrolled(report, now: SystemClock.now(), $0) }
        }
    }
}
