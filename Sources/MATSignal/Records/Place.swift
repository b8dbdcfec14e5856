/// One place where a node can be reached by rewriting, of kind 0: `MoA 16 | prefix length 1 | preference 1 | flags 1 zero | zero 1`.
///
/// It may be of another family than the HoA: that is not malformed (section 1), but only endpoints make use of such, so nodes skip it here.
public struct Locator: Hashable, Sendable {
    public var moa: MobileAddress
    /// 128, or the mapping's for a mobile network's prefix (MoPre).
    public var prefixLength: UInt8
    /// Lower is preferred.
    public var preference: UInt8

    public init(_ moa: MobileAddress, prefixLength: UInt8 = 128, preference: UInt8 = 0) {
        self.moa = moa
        self.prefixLength = prefixLength
        self.preference = preference
    }
}

extension MappingRecord {
    /// A locator of any kind (section 11.1): where a node can be reached, and how.
    ///
    /// ```
    /// address 16 | prefix length 1 | preference 1 | kind 1 | zero 1 | port 2 | zero 2
    /// ```
    public enum Place: Hashable, Sendable {
        /// Kind 0: a MoA or MoPre, at which it is reached by rewriting. Port 0; signalling for it goes to the node port.
        case moa(Locator)
        /// Kind 1: where it receives signalling and encapsulated packets.
        case endpoint(Endpoint, preference: UInt8)
        /// Kind 2: a relay at which it is bound, one for each of the relay's addresses.
        case relay(Endpoint, preference: UInt8)
        /// Of a kind that a later version gave: skipped, but kept, since it is signed too.
        case unknown(UnknownPlace)

        public var isMoA: Bool { if case .moa = self { true } else { false } }

        public var locator: Locator? { if case .moa(let locator) = self { locator } else { nil } }
        public var endpoint: Endpoint? { if case .endpoint(let endpoint, _) = self { endpoint } else { nil } }
        public var relay: Endpoint? { if case .relay(let relay, _) = self { relay } else { nil } }

        /// - Parameter withKind: in the form that flag E announces.
        func encode(into writer: inout SignalWriter, withKind: Bool) {
            switch self {
            case .moa(let locator):
                writer.address(locator.moa.address)
                writer.uint8(locator.prefixLength)
                writer.uint8(locator.preference)
                writer.zeros(withKind ? 6 : 2)
            case .endpoint(let endpoint, let preference):
                Self.encode(endpoint, preference, MappingRecordView.Kind.endpoint, into: &writer)
            case .relay(let relay, let preference):
                Self.encode(relay, preference, MappingRecordView.Kind.relay, into: &writer)
            case .unknown(let place):
                place.encode(into: &writer)
            }
        }

        private static func encode(_ endpoint: Endpoint, _ preference: UInt8, _ kind: UInt8, into writer: inout SignalWriter) {
            writer.address(endpoint.address)
            writer.uint8(128)
            writer.uint8(preference)
            writer.uint8(kind)
            writer.zeros(1)
            writer.uint16(endpoint.port)
            writer.zeros(2)
        }
    }

    /// Whether there are other locators than MoAs, which flag E says.
    public var hasKinds: Bool { !places.allSatisfy(\.isMoA) }

    // MARK: By kind, in the record's order

    /// The MoAs and MoPres, at which the node is reached by rewriting.
    public var locators: [Locator] {
        get { places.compactMap(\.locator) }
        // MoAs are preferred to what costs encapsulation.
        set { places = newValue.map(Place.moa) + places.filter { !$0.isMoA } }
    }

    /// Where it receives encapsulated packets, beside the MoAs.
    public var endpoints: [Endpoint] { places.compactMap(\.endpoint) }

    /// The addresses of the relays at which it is bound.
    public var relays: [Endpoint] { places.compactMap(\.relay) }

    /// Whether the node receives there by its own word: at a MoA's node port, or at an endpoint.
    public func lists(_ endpoint: Endpoint) -> Bool {
        endpoints.contains(endpoint) || endpoint.port == SignalPort.node && lists(MobileAddress(endpoint.address))
    }
}

/// The octets of a locator whose kind this version does not know.
public struct UnknownPlace: Hashable, Sendable {
    private let address: IPAddress
    private let rest: UInt64

    init(_ octets: OctetView, at place: Int) {
        address = octets.address(at: place)
        rest = octets.uint64(at: place &+ 16)
    }

    public var kind: UInt8 { UInt8(truncatingIfNeeded: rest >> 40) }

    func encode(into writer: inout SignalWriter) {
        writer.address(address)
        writer.uint64(rest)
    }
}
