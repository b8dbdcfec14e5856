import MATCore
import MATDNS
import MATRuntime
import MATSignal

/// Looks up the names of many addresses at once.
final class NameSurvey {
    /// Addresses of a prefix that are looked at: those of a /25.
    static let addressesMax: UInt64 = 128
    private static let inFlightMax = 16
    private static let patience: Duration = .seconds(10)

    private let loop: EventLoop
    private let resolver: Resolver
    private var facts: [ReverseNameFacts]
    private var next = 0
    private var open = 0

    static func look(at prefix: IPPrefix, by dns: DNSChoice) throws(CommandFailure) -> [ReverseNameFacts] {
        let count = min(addressesMax, UInt64(1) << UInt64(min(128 - prefix.length, 63)))
        do throws(SystemError) {
            let loop = try EventLoop()
            let survey = NameSurvey((0..<count).map { IPAddress(high: prefix.address.high, low: prefix.address.low &+ $0) }, dns, loop)
            // From within the loop: stopping before it runs would be forgotten.
            loop.schedule(after: .zero) { survey.ask() }
            loop.schedule(after: patience) { loop.stop() }
            try loop.run()
            return survey.facts
        } catch {
            throw CommandFailure("\(error)")
        }
    }

    private init(_ addresses: [IPAddress], _ dns: DNSChoice, _ loop: EventLoop) {
        self.loop = loop
        resolver = Resolver(loop: loop, configuration: dns.configuration)
        facts = addresses.map { ReverseNameFacts(address: $0) }
    }

    private func ask() {
        while open < Self.inFlightMax, next < facts.count {
            let index = next
            next += 1
            open += 1
            let name = DomainName.reverse(IPPrefix(facts[index].address))
            IMSLookup(resolver: resolver).lookup(at: name) { [self] result in
                facts[index].outcome =
                    switch result {
                    case .found: .found
                    case .absent: .absent
                    case .failed(let reason), .unusable(let reason): .failed(reason)
                    }
                resolver.resolveAliases(of: name) { [self] in
                    if case .end(let alias) = $0 { facts[index].alias = alias.name }
                    open -= 1
                    if open == 0, next == facts.count { loop.stop() } else { ask() }
                }
            }
        }
    }
}
