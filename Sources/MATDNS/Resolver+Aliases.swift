import MATCore
import MATSignal

/// Where a name's aliases (CNAME) lead.
package enum DNSAliases: Hashable, Sendable {
    /// The name is none.
    case none
    case end(DNSAlias)
    case failed(DNSFailure)
}

package struct DNSAlias: Hashable, Sendable {
    /// The last of the names.
    package var name: DomainName
    /// When the first of the aliases on the way runs out.
    package var expires: MonotonicTime
    /// Whether all of them are authenticated.
    package var isAuthenticated: Bool
}

extension Resolver {
    /// Asks for aliases one by one: where what is at their end can't be had, the answer to a question about that does not tell of them.
    package func resolveAliases(of name: DomainName, completion: @escaping (DNSAliases) -> Void) {
        follow(name, 0, DNSAlias(name: name, expires: .distantFuture, isAuthenticated: true), completion)
    }

    /// - Parameter followed: how many are behind `end`.
    private func follow(_ name: DomainName, _ followed: Int, _ end: DNSAlias, _ completion: @escaping (DNSAliases) -> Void) {
        resolve(DNSQuestion(name, .cname)) { [self] result in
            switch result {
            case .records(let records):
                var rdata = (records.rdata.first ?? [])[...]
                guard let target = try? DomainName.decode(&rdata) else { return completion(.failed(.malformed("a CNAME is malformed"))) }
                guard followed < DNSMessage.aliasesMax else { return completion(.failed(DNSMessage.endlessAliases)) }
                let next = DNSAlias(
                    name: target, expires: min(end.expires, records.expires), isAuthenticated: end.isAuthenticated && records.isAuthenticated)
                follow(target, followed + 1, next, completion)
            // Whatever became of the question about the last name: it is where the aliases lead.
            case .absent: completion(followed == 0 ? .none : .end(end))
            case .failed(let failure): completion(followed == 0 ? .failed(failure) : .end(end))
            }
        }
    }
}
