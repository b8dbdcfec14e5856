import IMTPlan
import MATRuntime

/// Receives copies of packets (NFLOG), each with the kernel's word on why.
final class HoldListener {
    private let socket: NetlinkSocket
    private let loop: EventLoop
    private let onCopies: ([Copy]) -> Void

    typealias Copy = (reason: CopyReason, packet: HeldPacket)

    /// In a flood copies come as fast as they are read. Whatever else the loop has to do, peers' messages and people's questions, has its turn between.
    private static let packetsPerTurnMax = 32

    init(loop: EventLoop, group: UInt16, onCopies: @escaping ([Copy]) -> Void) throws(KernelError) {
        self.loop = loop
        self.onCopies = onCopies
        socket = try NetlinkSocket(protocol: KernelValues.netlinkNetfilter, name: "NFLOG group \(group)")
        // nfgenmsg with the group in its resource field, in network order.
        func header(_ family: UInt8) -> [UInt8] { [family, 0, UInt8(group >> 8), UInt8(group & 0xFF)] }
        var request = socket.writer()
        let type = KernelValues.subsystemLog | KernelValues.logConfigure
        request.append(type: type, flags: KernelValues.flagAck) { message in
            message.putHeader(header(0))
            message.put(KernelValues.logConfigureCommand, octets: [KernelValues.logCommandBind])
        }
        request.append(type: type, flags: KernelValues.flagAck) { message in
            message.putHeader(header(0))
            // nfulnl_msg_config_mode: copy range 4 (network order), mode 1, pad 1.
            message.put(KernelValues.logConfigureMode, octets: [0, 0, 0xFF, 0xFF, KernelValues.logCopyPacket, 0])
        }
        request.append(type: type, flags: KernelValues.flagAck) { message in
            message.putHeader(header(0))
            // One packet per message, at once: the default waits a second for more.
            message.put(KernelValues.logConfigureThreshold, octets: [0, 0, 0, 1])
        }
        if let failure = try socket.exchange(request, operation: "bind to NFLOG").first(where: { $0.errno != 0 }) {
            throw KernelError(
                failure.errno == 16 ? .refused : KernelError.code(of: failure.errno), operation: "bind to NFLOG",
                object: "group \(group)" + (failure.errno == 16 ? "; another program uses it, configure another group" : ""),
                errno: failure.errno, sequence: failure.sequence)
        }
        do {
            try loop.watch(socket.descriptor) { [unowned self] in readable() }
        } catch {
            throw .system(error.operation, "NFLOG group \(group)", errno: error.errno)
        }
    }

    func stop() { loop.unwatch(socket.descriptor) }

    private func readable() {
        var copies: [Copy] = []
        // ENOBUFS: some were dropped, as a busy network would have done. Their senders repeat.
        _ = try? socket.drain(operation: "receive held packets", most: Self.packetsPerTurnMax) { incoming in
            guard incoming.type == KernelValues.subsystemLog | KernelValues.logPacket else { return }
            let attributes = incoming.attributes(after: 4)
            guard let payload = attributes.first(KernelValues.logPayload)?.octets else { return }
            let word = attributes.first(KernelValues.logPrefix).map { String(decoding: $0.octets.prefix { $0 != 0 }, as: UTF8.self) }
            // Another word is none of ours: somebody else logs to this group.
            guard let kind = CopyReason(rawValue: word ?? "") else { return }
            let isOpener: Bool? = kind == .opener ? true : kind == .held ? false : nil
            if let packet = HeldPacket(copy: payload, isOpener: isOpener) { copies.append((kind, packet)) }
        }
        onCopies(copies)
    }
}
