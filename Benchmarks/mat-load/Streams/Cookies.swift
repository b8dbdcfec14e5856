import MATSignal

/// The cookies that the server gave each address of each node.
final class Cookies {
    private let nodes: Nodes
    private let octets: UnsafeMutablePointer<CookieOctets>
    private let count: Int

    init(_ nodes: Nodes, upTo count: Int) {
        self.nodes = nodes
        self.count = count
        octets = .allocate(capacity: count * Population.blocksMax)
        octets.initialize(repeating: CookieOctets(), count: count * Population.blocksMax)
    }

    deinit { octets.deallocate() }

    /// - Parameter node: below the count that this was made for.
    subscript(node: Int, moves: Int) -> CookieOctets {
        get { octets[nodes.block(node, moves) * count + node] }
        set { octets[nodes.block(node, moves) * count + node] = newValue }
    }

    /// The client's half: by node and address.
    func client(_ node: Int, _ moves: Int) -> UInt64 { nodes.clientCookie(node, moves) }

    /// Requests that get the cookies of these nodes at these addresses: the shortest query, which the server answers with one.
    func requests(_ list: [(node: Int, moves: Int)]) -> Requests {
        let template = SignalMessage(sequence: 0, .maQuery(MAQuery(cookie: Cookie(client: 0), hoa: HomeAddress(nodes.hoa(0))))).octets
        return Requests(
            count: list.count,
            write: { [self] number, octets in
                let (node, moves) = list[number]
                put(template, at: octets)
                octets.storeBytes(of: client(node, moves).bigEndian, toByteOffset: Offset.clientCookie, as: UInt64.self)
                // Without the server's half the HoA comes 16 octets earlier.
                octets.store(nodes.hoa(node), at: Offset.hoa - 16)
                return template.count
            },
            source: { [nodes] in nodes.moa(list[$0].node, list[$0].moves) },
            endsWithCookie: true,
            done: { [self] number, message, _ in
                if let cookie = message.serverCookie { self[list[number].node, list[number].moves] = cookie }
            })
    }
}
