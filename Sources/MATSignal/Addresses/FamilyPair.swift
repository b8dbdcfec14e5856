/// One value for each family: what a dictionary would hold by family, without the question what it means if one is missing.
public struct FamilyPair<Value> {
    public var ipv4: Value
    public var ipv6: Value

    public init(ipv4: Value, ipv6: Value) {
        self.ipv4 = ipv4
        self.ipv6 = ipv6
    }

    /// The same for both.
    public init(both value: Value) {
        self.init(ipv4: value, ipv6: value)
    }

    /// Makes the value of each family, IPv4's first.
    public init<Failure: Error>(_ make: (AddressFamily) throws(Failure) -> Value) throws(Failure) {
        let ipv4 = try make(.ipv4)
        self.init(ipv4: ipv4, ipv6: try make(.ipv6))
    }

    public subscript(family: AddressFamily) -> Value {
        get { family == .ipv4 ? ipv4 : ipv6 }
        _modify {
            switch family {
            case .ipv4: yield &ipv4
            case .ipv6: yield &ipv6
            }
        }
    }

    /// Both, IPv4's first.
    public var values: [Value] { [ipv4, ipv6] }

    public func mapValues<Other, Failure: Error>(_ transform: (Value) throws(Failure) -> Other) throws(Failure) -> FamilyPair<Other> {
        let first = try transform(ipv4)
        return FamilyPair<Other>(ipv4: first, ipv6: try transform(ipv6))
    }
}

extension FamilyPair: Sendable where Value: Sendable {}
extension FamilyPair: Equatable where Value: Equatable {}
extension FamilyPair: Hashable where Value: Hashable {}

/// Walks over both families with their values, in order.
extension FamilyPair: Sequence {
    public func makeIterator() -> IndexingIterator<[(family: AddressFamily, value: Value)]> {
        [(family: .ipv4, value: ipv4), (family: .ipv6, value: ipv6)].makeIterator()
    }
}
