import BenchSupport
import MATSignal

/// IMS Updates of nodes that move, one after the other: signed ahead of the run, so that the run measures the server.
final class Updates {
    /// MAPPING of one locator, SIGNATURE, and CERTIFICATE or CERT-ID.
    private static let octetsMax = 320

    private let nodes: Nodes
    private let cookies: Cookies
    let count: Int
    private let nodesCount: Int
    private let firstMove: Int
    private let messages: UnsafeMutableRawPointer
    private let length: Int

    /// - Parameters:
    ///   - nodesCount: the nodes that take turns, from 0 on; all of them signed.
    ///   - firstMove: how often the nodes have moved before.
    ///   - wholeCertificate: or the certificate's id, as nodes do whose certificate the server has.
    ///   - now: Unix time in ms; sequence numbers grow from there.
    init(
        _ nodes: Nodes, count: Int, nodesCount: Int, firstMove: Int, issuer: SigningKey, cookies: Cookies, wholeCertificate: Bool, now: UInt64
    ) throws {
        guard nodesCount <= nodes.population.signedCount else {
            throw BenchError("\(nodesCount) nodes are to update, but only \(nodes.population.signedCount) of the population have keys")
        }
        self.nodes = nodes
        self.cookies = cookies
        self.count = count
        self.nodesCount = nodesCount
        self.firstMove = firstMove
        let placeholder = try AnyCookie.make()

        let keys = try inParallel(0..<min(count, nodesCount)) { node -> (SigningKey, Certificate) in
            let key = try nodes.key(node)
            return (key, try nodes.certificate(node, of: key.publicKey, by: issuer))
        }
        let octets = try inParallel(0..<count) { number -> [UInt8] in
            let node = number % nodesCount
            let moves = firstMove + 1 + number / nodesCount
            let record = nodes.record(node, moves: moves, sequence: now + UInt64(number / nodesCount), issued: now)
            guard let signed = record.signed(with: keys[node].0) else { throw BenchError("a record could not be signed") }
            let certificate: CertificateReference = wholeCertificate ? .whole(keys[node].1) : .id(keys[node].1.id)
            let update = IMSUpdate(
                cookie: Cookie(client: nodes.clientCookie(node, moves), server: placeholder),
                record: EnclosedRecord(mapping: signed, certificate: certificate))
            return SignalMessage(sequence: 0, .imsUpdate(update)).octets
        }
        length = octets.first?.count ?? 0
        guard length <= Self.octetsMax else { throw BenchError("an update has \(length) octets") }
        messages = .allocate(byteCount: max(1, count * Self.octetsMax), alignment: 64)
        for (number, message) in octets.enumerated() {
            put(message, at: messages + number * Self.octetsMax)
        }
    }

    deinit { messages.deallocate() }

    private func node(_ number: Int) -> Int { number % nodesCount }
    private func moves(_ number: Int) -> Int { firstMove + 1 + number / nodesCount }

    /// The addresses that the updates come from, each once.
    var places: [(node: Int, moves: Int)] {
        let rounds = min(Population.blocksMax, (count + nodesCount - 1) / max(1, nodesCount))
        return (0..<rounds).flatMap { round in (0..<min(nodesCount, count - round * nodesCount)).map { ($0, firstMove + 1 + round) } }
    }

    /// - Parameter done: the update of this node is answered with this code.
    func requests(done: @escaping (_ number: Int, _ node: Int, _ code: UInt8, _ now: UInt64) -> Void = { _, _, _, _ in }) -> Requests {
        Requests(
            count: count,
            write: { [self] number, octets in
                octets.copyMemory(from: messages + number * Self.octetsMax, byteCount: length)
                cookies[node(number), moves(number)].write(to: octets + Offset.serverCookie)
                return length
            },
            source: { [self] in nodes.moa(node($0), moves($0)) },
            follow: { [self] number, cookie in cookies[node(number), moves(number)] = cookie },
            done: { [self] number, message, now in done(number, node(number), message.code, now) })
    }
}
