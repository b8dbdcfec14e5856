import ArgumentParser
import Glibc
import MATLab
import MATSignal
import Namespaces

/// The translator of a gateway. The lab starts it; a person may as well, to see what a kind of NAT does.
struct Nat: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Be the NAT of this network namespace, for kinds that nftables has not; until ended by a signal.",
        discussion: """
            Makes a TUN interface. What is routed into it is translated and comes out of it again: packets from inside to anywhere, and packets to \
            the outer address. `move mn cone` builds a gateway with it.
            """)

    @Argument(help: "The interface to make.") var device: String
    @Option(help: "The address outside.") var outer: String
    @Option(help: "The IPv4 prefix inside; or an IPv6 prefix of 96 bits, in which IPv4 addresses lie for the hosts inside (NAT64).") var inside:
        String
    @Option(help: "endpoint-independent or address-and-port-dependent (RFC 4787).") var mapping = Translation.Mapping.endpointIndependent
    @Option(help: "endpoint-independent, address-dependent or address-and-port-dependent.") var filtering = Translation.Filtering
        .addressAndPortDependent
    @Flag(help: "Inner hosts reach one another at their outer endpoints.") var hairpins = false
    @Option(help: "A mapping ends after so many seconds, whatever traffic it has.") var age: Int?
    @Option(help: "Ports outside of each inner address; any if not given.") var block: Int?
    @Option(help: "Seconds until a flow without an answer is forgotten.") var unanswered = 30
    @Option(help: "Seconds until another one is, when it is silent.") var answered = 120

    func run() throws {
        Interruption.watch()
        try complaining {
            guard let outer = IPAddress(outer), outer.family == .ipv4 else { throw LabError("--outer needs an IPv4 address, not \(outer)") }
            guard let inside = IPPrefix(inside) else { throw LabError("--inside needs a prefix, not \(inside)") }
            let rules = Translation(
                mapping: mapping, filtering: filtering, hairpins: hairpins, ageSeconds: age, blockPorts: block, unansweredSeconds: unanswered,
                answeredSeconds: answered)
            try Translator.run(device, outer: outer, inside: inside, rules)
        }
    }
}

extension Translation.Mapping: ExpressibleByArgument {}
extension Translation.Filtering: ExpressibleByArgument {}
