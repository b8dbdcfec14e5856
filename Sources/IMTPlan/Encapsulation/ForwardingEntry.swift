import MATSignal

/// What the kernel's programs know of a peer whose packets travel in datagrams: the octets of `struct peer` in
/// Sources/KernelPrograms/Programs/encapsulation.bpf.c.
///
///      0 number of its counters 4 | link 4 | family of the datagrams, 4 or 6, 1 | accepted endpoints 1 | asks 1 | zero 1
///     12 largest packet 2 | own port 2 | far port 2 | IPv4: sum of the outer header 2 | own address 16 | far address 16
///     52 next hop (struct bpf_redir_neigh): family as sockets have it 4, address 16, as in packets | 72 accepted endpoints, 16 times: address 16,
///        port 2, zero 2
///
/// Numbers in the machine's order, addresses, ports and the sum in the network's.
package struct ForwardingEntry: Hashable, Sendable {
    package static let octets = acceptedPlace + EncapsulationTable.endpointsMax * acceptedOctets
    private static let nextPlace = 52, acceptedPlace = 72, acceptedOctets = 20
    /// AF_INET, AF_INET6.
    private static let families: [AddressFamily: UInt32] = [.ipv4: 2, .ipv6: 10]

    package struct Way: Hashable, Sendable {
        package var own: Endpoint
        package var far: Endpoint
        /// The number of the link that packets leave by.
        package var link: UInt32
        /// The largest packet that leaves by this way, in octets; larger ones are the agent's.
        package var largest: UInt16
        /// Whom the link hands packets to; without it the kernel looks for a route for each.
        package var next: IPAddress?

        package init(own: Endpoint, far: Endpoint, link: UInt32, largest: UInt16, next: IPAddress? = nil) {
            self.own = own
            self.far = far
            self.link = link
            self.largest = largest
            self.next = next
        }
    }

    /// Of its counters.
    package var slot: UInt32
    /// `nil` for one that is only taken from.
    package var way: Way?
    package var accepted: [Endpoint]
    /// The next packet goes to the agent, which learns from it that there is this peer.
    package var asks = false

    package init(slot: UInt32, way: Way?, accepted: [Endpoint]) {
        self.slot = slot
        self.way = way
        self.accepted = accepted
    }

    /// The key that the programs look for: addresses as in packets of their family.
    package static func key(_ pair: HomePair) -> [UInt8] { pair.own.address.packetOctets + pair.peer.address.packetOctets }

    package static func pair(_ key: UnsafeRawBufferPointer) -> HomePair? {
        let half = key.count / 2
        guard let own = IPAddress(octets: key[..<half]), let peer = IPAddress(octets: key[half...]) else { return nil }
        return HomePair(own: HomeAddress(own), peer: HomeAddress(peer))
    }

    package func encode() -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Self.octets) { buffer, initialized in
            let raw = UnsafeMutableRawBufferPointer(buffer)
            raw.initializeMemory(as: UInt8.self, repeating: 0)
            raw.storeBytes(of: slot, toByteOffset: 0, as: UInt32.self)
            let taken = accepted.prefix(EncapsulationTable.endpointsMax)
            (raw[9], raw[10]) = (UInt8(taken.count), asks ? 1 : 0)
            if let way {
                raw.storeBytes(of: way.link, toByteOffset: 4, as: UInt32.self)
                raw[8] = way.own.address.isIPv4 ? 4 : 6
                raw.storeBytes(of: way.largest, toByteOffset: 12, as: UInt16.self)
                raw.put(way.own.port, at: 14)
                raw.put(way.far.port, at: 16)
                raw.put(Self.sum(way), at: 18)
                for (offset, address) in [(20, way.own.address), (36, way.far.address)] { raw.put(address, at: offset) }
                if let next = way.next {
                    raw.storeBytes(of: Self.families[next.family] ?? 0, toByteOffset: Self.nextPlace, as: UInt32.self)
                    raw[(Self.nextPlace + 4)...].copyBytes(from: next.packetOctets)
                }
            }
            for (index, endpoint) in taken.enumerated() {
                let place = Self.acceptedPlace + index * Self.acceptedOctets
                raw.put(endpoint.address, at: place)
                raw.put(endpoint.port, at: place + 16)
            }
            initialized = Self.octets
        }
    }

    /// - Returns: `nil` for what is no entry.
    package init?(_ value: UnsafeRawBufferPointer) {
        guard value.count == Self.octets, Int(value[9]) <= EncapsulationTable.endpointsMax else { return nil }
        slot = value.loadUnaligned(fromByteOffset: 0, as: UInt32.self)
        asks = value[10] != 0
        accepted = (0..<Int(value[9])).map { index in
            let place = Self.acceptedPlace + index * Self.acceptedOctets
            return Endpoint(value.address(at: place), port: value.number(at: place + 16))
        }
        guard value[8] == 4 || value[8] == 6 else { return }
        let family = value.loadUnaligned(fromByteOffset: Self.nextPlace, as: UInt32.self)
        let nextOctets = Self.families.first { $0.value == family }.map { $0.key == .ipv4 ? 4 : 16 } ?? 0
        way = Way(
            own: Endpoint(value.address(at: 20), port: value.number(at: 14)), far: Endpoint(value.address(at: 36), port: value.number(at: 16)),
            link: value.loadUnaligned(fromByteOffset: 4, as: UInt32.self), largest: value.loadUnaligned(fromByteOffset: 12, as: UInt16.self),
            next: IPAddress(octets: value[(Self.nextPlace + 4)..<(Self.nextPlace + 4 + nextOctets)]))
    }

    /// Of the words that the outer IPv4 header has in all datagrams of this way.
    private static func sum(_ way: Way) -> UInt16 {
        guard way.own.address.isIPv4 else { return 0 }
        var sum = InternetSum()
        // Version and length; don't fragment; 64 hops, UDP.
        for word: UInt16 in [0x4500, 0x4000, 64 << 8 | 17] { sum.add(word) }
        for address in [way.own.address, way.far.address] {
            sum.add(UInt16(truncatingIfNeeded: address.low >> 16))
            sum.add(UInt16(truncatingIfNeeded: address.low))
        }
        return sum.folded
    }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate func put(_ address: IPAddress, at offset: Int) {
        storeBytes(of: address.high.bigEndian, toByteOffset: offset, as: UInt64.self)
        storeBytes(of: address.low.bigEndian, toByteOffset: offset + 8, as: UInt64.self)
    }
}
