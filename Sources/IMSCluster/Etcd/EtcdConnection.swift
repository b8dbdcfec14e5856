import IMS
import NIOCore
import NIOHTTP2
import NIOPosix
import NIOSSL

/// One HTTP/2 connection to one member. Used in its event loop's thread only.
///
/// SwiftNIO's HTTP/2 and TLS with gRPC's framing on top, rather than grpc-swift-2: etcd sends a PING with nearly every DATA frame,
/// which HTTP/2 handlers with the default limit take for an attack after 200 of them, and grpc-swift-2 lets nobody set that limit.
final class EtcdConnection: @unchecked Sendable {
    /// From the first SYN to the end of the TLS handshake's beginning; a member that is stopped still accepts connections.
    static let connectTimeMax = TimeAmount.milliseconds(500)
    /// Control frames within `controlFramesWindow`: one for each DATA frame that a loaded watch may bring.
    static let controlFramesMax = 1_000_000
    static let controlFramesWindow = TimeAmount.seconds(1)
    /// What may wait to be sent, far above what `ClusterInstance` has under way at once. A connection that becomes unwritable between
    /// answers to PINGs trips an assertion of swift-nio-http2 1.46.0 in debug builds (ControlFrameBuffer).
    static let waitingBytes = ChannelOptions.Types.WriteBufferWaterMark(low: 16 << 20, high: 32 << 20)
    /// What may be under way to us, for a stream and for the connection.
    static let windowBytes = 4 << 20

    let endpoint: EtcdConfiguration.Endpoint
    private let channel: any Channel
    private let multiplexer: NIOHTTP2Handler.StreamMultiplexer
    private let isSecure: Bool
    private let failures: FailureKeeper.Reason
    private var calls: [ObjectIdentifier: EtcdCall] = [:]
    /// Why the connection was lost; called once.
    var onClose: ((String) -> Void)?
    /// What authentication gave, sent along with every call.
    var token: String?

    private init(
        _ endpoint: EtcdConfiguration.Endpoint, _ channel: any Channel, _ multiplexer: NIOHTTP2Handler.StreamMultiplexer,
        isSecure: Bool,
        _ failures: FailureKeeper.Reason
    ) {
        self.endpoint = endpoint
        self.channel = channel
        self.multiplexer = multiplexer
        self.isSecure = isSecure
        self.failures = failures
    }

    /// - Parameter serverName: what the member's certificate must say, if not the endpoint's host.
    static func connect(
        to endpoint: EtcdConfiguration.Endpoint, tls: NIOSSLContext?, serverName: String?, on loop: any EventLoop
    ) -> EventLoopFuture<EtcdConnection> {
        let failures = FailureKeeper.Reason()
        let bootstrap = ClientBootstrap(group: loop)
            .connectTimeout(connectTimeMax)
            .channelOption(.socketOption(.so_keepalive), value: 1)
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.writeBufferWaterMark, value: waitingBytes)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard let tls else { return }
                    let name = serverName ?? (endpoint.isNumeric ? nil : endpoint.host)
                    try channel.pipeline.syncOperations.addHandler(try NIOSSLClientHandler(context: tls, serverHostname: name))
                }
            }
        return bootstrap.connect(host: endpoint.host, port: endpoint.port).flatMap { channel in
            var connection = NIOHTTP2Handler.ConnectionConfiguration()
            connection.controlFrameRateLimit.maximumCount = controlFramesMax
            connection.controlFrameRateLimit.windowLength = controlFramesWindow
            connection.targetWindowSize = windowBytes
            var stream = NIOHTTP2Handler.StreamConfiguration()
            stream.targetWindowSize = windowBytes
            return channel.configureHTTP2Pipeline(
                mode: .client, connectionConfiguration: connection, streamConfiguration: stream,
                inboundStreamInitializer: { $0.close() }
            ).flatMapThrowing { multiplexer in
                try channel.pipeline.syncOperations.addHandler(FailureKeeper(failures))
                let result = EtcdConnection(endpoint, channel, multiplexer, isSecure: tls != nil, failures)
                channel.closeFuture.whenComplete { _ in
                    result.closed("\(endpoint): \(failures.text ?? "the connection was closed")")
                }
                return result
            }
        }
    }

    /// Whether nobody listens at the port, on a machine that is there and says so.
    static func isRefusal(_ error: any Error) -> Bool {
        guard let attempts = (error as? NIOConnectionError)?.connectionErrors else { return false }
        return attempts.contains { ($0.error as? IOError)?.errnoCode == ECONNREFUSED }
    }

    private func closed(_ reason: String) {
        let open = calls.values
        calls = [:]
        for call in open { call.finish(EtcdError(.unreachable, reason)) }
        let tell = onClose
        onClose = nil
        tell?(reason)
    }

    /// Closes it without a word to `onClose`; calls under way are told.
    func close() {
        onClose = nil
        channel.close(promise: nil)
    }

    // MARK: Calls

    /// Asks once; `answer` is called once.
    func ask(_ request: EtcdRequest, within time: TimeAmount, answer: @escaping (Result<EtcdResponse, EtcdError>) -> Void) {
        var response = Result<EtcdResponse, EtcdError>.failure(EtcdError(.refused, "etcd ended \(request.method) without an answer"))
        let call = EtcdCall(
            method: request.method, authority: endpoint.description, isSecure: isSecure, metadata: metadata,
            request: request.octets,
            isUnary: true,
            onMessage: { message in
                response = Result { try EtcdResponse(to: request, message) }.mapError { .unreadable(request.method, of: self.endpoint, message, $0) }
            },
            onEnd: { error in answer(error.map { .failure(self.explain($0)) } ?? response) })
        call.setDeadline(time, on: channel.eventLoop)
        begin(call)
    }

    /// Begins a watch; it goes on until the call is cancelled or `onEnd`.
    func watch(
        _ watch: EtcdWatch, onResponse: @escaping (EtcdWatchResponse) -> Void, onEnd: @escaping (EtcdError) -> Void
    ) -> EtcdCall {
        var call: EtcdCall?
        let begun = EtcdCall(
            method: EtcdWatch.method, authority: endpoint.description, isSecure: isSecure,
            // A member that is cut off from the others then ends the watch instead of keeping silent.
            metadata: metadata + [("hasleader", "true")], request: watch.octets, isUnary: false,
            onMessage: { message in
                do {
                    onResponse(try EtcdWatchResponse(message))
                } catch {
                    call?.finish(.unreadable(EtcdWatch.method, of: self.endpoint, message, error))
                }
            },
            onEnd: { error in
                call = nil
                onEnd(error.map { self.explain($0) } ?? EtcdError(.unavailable, "etcd ended the watch"))
            })
        call = begun
        begin(begun)
        return begun
    }

    /// A call sees only that its stream is gone; why is known to the connection.
    private func explain(_ error: EtcdError) -> EtcdError {
        guard error.kind == .unreachable else { return error }
        return EtcdError(.unreachable, "\(endpoint): \(failures.text ?? error.description)")
    }

    private var metadata: [(String, String)] { token.map { [("token", $0)] } ?? [] }

    private func begin(_ call: EtcdCall) {
        let id = ObjectIdentifier(call)
        calls[id] = call
        let opened = channel.eventLoop.makePromise(of: (any Channel).self)
        opened.futureResult.whenComplete { [weak self] result in
            guard let self else { return call.finish(EtcdError(.unreachable, "the connection to etcd was given up")) }
            switch result {
            case .success(let stream): stream.closeFuture.whenComplete { _ in self.calls[id] = nil }
            case .failure(let error):
                calls[id] = nil
                call.finish(EtcdError(.unreachable, "no stream to \(endpoint): \(error)"))
            }
        }
        multiplexer.createStreamChannel(promise: opened) { stream in
            stream.eventLoop.makeCompletedFuture { try stream.pipeline.syncOperations.addHandler(call) }
        }
    }
}

extension EtcdConfiguration.Endpoint {
    /// Whether the host is an address, which TLS does not take as a server name.
    fileprivate var isNumeric: Bool { (try? SocketAddress(ipAddress: host, port: port)) != nil }
}

/// Remembers the first error of a connection, for a person: of TLS above all.
final class FailureKeeper: ChannelInboundHandler {
    typealias InboundIn = HTTP2Frame

    /// Used in the event loop's thread only.
    final class Reason: @unchecked Sendable {
        var text: String?
    }

    private let reason: Reason
    init(_ reason: Reason) { self.reason = reason }

    /// TLS's own words, with what to look at before them.
    private static func explain(_ text: String) -> String {
        let remedy: String? =
            if text.contains("CERTIFICATE_VERIFY_FAILED") {
                "its certificate is not of an authority in `ca`, or has run out"
            } else if text.contains("failedToValidateHostname") {
                "its certificate does not name the endpoint's host; see `server-name`"
            } else if text.contains("ALERT") && text.contains("CERTIFICATE") {
                "it does not take this server's certificate, or wants one; see `certificate`"
            } else {
                nil
            }
        return remedy.map { "\($0) (\(text))" } ?? text
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if reason.text == nil { reason.text = Self.explain("\(error)") }
        context.close(promise: nil)
    }
}
