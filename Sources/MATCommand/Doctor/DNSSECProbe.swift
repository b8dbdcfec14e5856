import CLinux
import Glibc
import MATCore
import MATDNS
import MATRuntime
import MATSignal

/// Asks a resolver what `DNSSECFacts` holds, one question after the other.
enum DNSSECProbe {
    private static let patience: Duration = .milliseconds(1500)
    private static let triesMax = 2

    static func ask(_ resolver: Endpoint, about name: DomainName, _ type: DNSType = .ims, isRequired: Bool) -> DNSSECFacts {
        var facts = DNSSECFacts(name: "\(name)", resolver: resolver, isRequired: isRequired)
        let question = DNSQuestion(name, type)
        facts.answer = ask(resolver, question)
        guard let answer = facts.answer else { return facts }
        if answer.code == 2 {
            facts.unchecked = ask(resolver, question, isUnchecked: true)
        } else if answer.hasSignatures, !answer.isAuthenticated {
            facts.validatesRoot = DomainName(".").flatMap { ask(resolver, DNSQuestion($0, .dnskey)) }?.isAuthenticated ?? false
        }
        return facts
    }

    private static func ask(_ resolver: Endpoint, _ question: DNSQuestion, isUnchecked: Bool = false) -> DNSAuthentication? {
        let identifier = UInt16.random(in: 0 ... .max)
        guard let query = DNSMessage.encodeQuery(question, id: identifier, isUnchecked: isUnchecked, wantsSignatures: true) else { return nil }
        return OwnTraffic.withUDP(to: resolver) { answer(to: question, query, from: $0) }
    }

    /// - Parameter descriptor: of a socket that is connected to the resolver.
    private static func answer(to question: DNSQuestion, _ query: [UInt8], from descriptor: Int32) -> DNSAuthentication? {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        for _ in 0..<triesMax {
            guard send(descriptor, query, query.count, 0) == query.count else { return nil }
            let began = SystemClock.now().monotonic
            while true {
                let left = patience - (SystemClock.now().monotonic - began)
                var waited = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
                guard left > .zero, poll(&waited, 1, Int32(clamping: max(1, left.millisecondsSaturated))) > 0 else { break }
                let count = recv(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
                guard count > 0 else { return nil }
                if let answer = DNSAuthentication(decoding: Array(buffer.prefix(count)), to: question, query: query) { return answer }
            }
        }
        return nil
    }
}
