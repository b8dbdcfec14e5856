import NIOCore
import NIOHPACK
import NIOHTTP2

/// One gRPC call on one HTTP/2 stream: sends messages, hands on those that come, and tells once how it ended.
///
/// ```
///   request:  HEADERS (:path /package.Service/Method)  DATA*            DATA := (compressed 0 1 | length 4 | message)*
///   answer:   HEADERS (:status 200)  DATA*  HEADERS (grpc-status, grpc-message)
/// ```
/// See https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. Used in its event loop's thread only.
final class EtcdCall: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = HTTP2Frame.FramePayload
    typealias OutboundOut = HTTP2Frame.FramePayload

    /// An answer to a page of a range, or a part of what a watch has to tell; etcd splits the latter at 1.5 MB.
    static let messageBytesMax = 64 << 20

    private let headers: HPACKHeaders
    private let request: [UInt8]
    private let isUnary: Bool
    private let onMessage: ([UInt8]) -> Void
    private var onEnd: ((EtcdError?) -> Void)?
    private var deadline: Scheduled<Void>?
    private weak var channel: (any Channel)?
    private var received = ByteBuffer()

    /// - Parameters:
    ///   - isUnary: whether there is one message each way; otherwise the stream stays open until `cancel` or the other side's end.
    ///   - onEnd: gets `nil` if etcd said that all is well.
    init(
        method: String, authority: String, isSecure: Bool, metadata: [(String, String)], request: [UInt8], isUnary: Bool,
        onMessage: @escaping ([UInt8]) -> Void, onEnd: @escaping (EtcdError?) -> Void
    ) {
        var headers = HPACKHeaders([
            (":method", "POST"), (":scheme", isSecure ? "https" : "http"), (":path", method), (":authority", authority),
            ("content-type", "application/grpc"), ("te", "trailers"),
        ])
        for (name, value) in metadata { headers.add(name: name, value: value) }
        self.headers = headers
        self.request = request
        self.isUnary = isUnary
        self.onMessage = onMessage
        self.onEnd = onEnd
    }

    func setDeadline(_ time: TimeAmount, on loop: any EventLoop) {
        deadline = loop.assumeIsolated().scheduleTask(in: time) { [weak self] in
            self?.finish(EtcdError(.unreachable, "etcd did not answer within \(time.nanoseconds / 1_000_000) ms"))
        }
    }

    /// Ends the call without a word to its owner.
    func cancel() {
        onEnd = nil
        finish(nil)
    }

    func finish(_ error: EtcdError?) {
        deadline?.cancel()
        deadline = nil
        let end = onEnd
        onEnd = nil
        channel?.close(promise: nil)
        channel = nil
        end?(error)
    }

    // MARK: The stream's channel

    func handlerAdded(context: ChannelHandlerContext) { channel = context.channel }

    func channelActive(context: ChannelHandlerContext) {
        context.write(wrapOutboundOut(.headers(.init(headers: headers))), promise: nil)
        var frame = context.channel.allocator.buffer(capacity: request.count + 5)
        frame.writeInteger(UInt8(0))
        frame.writeInteger(UInt32(truncatingIfNeeded: request.count))
        frame.writeBytes(request)
        context.writeAndFlush(wrapOutboundOut(.data(.init(data: .byteBuffer(frame), endStream: isUnary))), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .headers(let payload):
            if let status = payload.headers.first(name: "grpc-status") {
                let message = payload.headers.first(name: "grpc-message") ?? "gRPC status \(status)"
                finish(status == "0" ? nil : EtcdError(status: Int(status) ?? 2, message: message))
            } else if let status = payload.headers.first(name: ":status"), status != "200" {
                finish(EtcdError(.refused, "the server answers HTTP status \(status); is it etcd's client port?"))
            }
        case .data(let payload):
            guard case .byteBuffer(var bytes) = payload.data else { return }
            received.writeBuffer(&bytes)
            readMessages()
        default: break
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        finish(EtcdError(.unreachable, "the connection to etcd was lost"))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        finish(EtcdError(.unreachable, "the connection to etcd failed: \(error)"))
    }

    private func readMessages() {
        while onEnd != nil, let length = received.getInteger(at: received.readerIndex + 1, as: UInt32.self) {
            guard received.getInteger(at: received.readerIndex, as: UInt8.self) == 0, length <= UInt32(Self.messageBytesMax)
            else {
                return finish(EtcdError(.refused, "etcd's answer is compressed or longer than \(Self.messageBytesMax) octets"))
            }
            guard received.readableBytes >= Int(length) + 5 else { return }
            received.moveReaderIndex(forwardBy: 5)
            guard let message = received.readBytes(length: Int(length)) else { return }
            received.discardReadBytes()
            onMessage(message)
        }
    }
}
