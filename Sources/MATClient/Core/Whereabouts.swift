import MATSignal

/// Where a home address is, as far as that is proven.
public enum Whereabouts: Hashable, Sendable {
    /// Its node has said so: the record is signed with a certified key, and in force.
    case registered(CertifiedMapping)
    /// Its node has said that it is nowhere.
    case withdrawn(CertifiedMapping)
    /// The operator of its mapping server took the address from its node.
    case revoked(CertifiedMapping)
    /// Its mapping server knows nothing of its node, which is off or was not there for long.
    case unregistered
    /// The DNS names no mapping server for it: packets to it go as to any address.
    case plain

    /// The record in force; `nil` unless the node is registered.
    public var mapping: CertifiedMapping? { if case .registered(let mapping) = self { mapping } else { nil } }

    /// Where packets go, the best first; nothing unless the node is registered.
    public var places: [MappingRecord.Place] { mapping?.record.places ?? [] }

    /// - Parameter mapping: one that was verified.
    init(_ mapping: CertifiedMapping) {
        self = mapping.isRevocation ? .revoked(mapping) : mapping.record.isWithdrawal ? .withdrawn(mapping) : .registered(mapping)
    }
}

/// Why nothing is known of a home address. It never means that the address is a plain one.
public struct LookUpFailure: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Cause: Hashable, Sendable {
        /// The DNS gives no answer.
        case names
        /// What the DNS says is forged, or can't be used.
        case distrust
        /// No mapping server answers.
        case silence
        /// The mapping servers answer, with this at last.
        case refusal(ResponseCode)
        /// What a mapping server says is not to be believed.
        case unverified
        /// There is no room for one more.
        case overload
        /// The client has ended.
        case ended
    }

    public let cause: Cause
    /// For people.
    public let description: String

    init(_ cause: Cause, _ description: String) {
        self.cause = cause
        self.description = description
    }
}

/// What a watch tells.
public enum WatchNews: Hashable, Sendable {
    /// The home address is here now.
    case found(Whereabouts)
    /// Nobody can say where it is. What was told last holds until its record's end; the watch goes on asking.
    case failed(LookUpFailure)
}
