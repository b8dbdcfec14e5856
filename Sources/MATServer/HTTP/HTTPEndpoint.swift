import MATSignal
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// The metrics can't be told.
public struct MetricsEndpointError: Error, CustomStringConvertible {
    public let description: String
}

/// `GET /metrics` over HTTP/1.1, on a thread of its own.
///
/// A scrape asks the rest of the program for the page and waits for it; whoever reads slowly or not at all holds up nothing but this
/// thread's other connections' memory, and there are few of those.
public final class MetricsEndpoint: Sendable {
    /// Open connections; further ones are closed at once.
    static let connectionsMax = 32
    /// How long a connection may do nothing.
    static let idleMax = TimeAmount.seconds(60)
    /// How long the program may take to write the page.
    static let pageWaitMax = TimeAmount.seconds(5)

    /// Asks for a page of the exposition format; the answer may come in any thread.
    public typealias Page = @Sendable (_ respond: @escaping @Sendable (String) -> Void) -> Void

    private let group: MultiThreadedEventLoopGroup
    private let channel: any Channel
    private let connectionsCount: ConnectionsCount

    /// Where it listens: the port asked for, or the one that the kernel chose for port 0.
    public var port: UInt16 { UInt16(clamping: channel.localAddress?.port ?? 0) }

    /// Listens. Blocks until that is done or refused; for the start of a program, and the reading of a new configuration.
    ///
    /// - Parameters:
    ///   - address: port 0 lets the kernel choose.
    ///   - program: who is too busy, when the page does not come in time.
    public init(address: Endpoint, program: String, page: @escaping Page) throws(MetricsEndpointError) {
        let count = ConnectionsCount()
        connectionsCount = count
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 32)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard count.enter() else { throw ChannelError.ioOnClosedChannel }
                    channel.closeFuture.whenComplete { _ in count.leave() }
                    try channel.pipeline.syncOperations.addHandler(IdleStateHandler(allTimeout: Self.idleMax))
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline(withErrorHandling: true)
                    try channel.pipeline.syncOperations.addHandler(MetricsHandler(program, page))
                }
            }
        do {
            channel = try bootstrap.bind(host: "\(address.address)", port: Int(address.port)).wait()
        } catch {
            try? group.syncShutdownGracefully()
            throw MetricsEndpointError(
                description: "metrics: can't listen at \(address): \(error); is something else there? Name another address at metrics: listen:")
        }
    }

    /// Closes everything. Blocks for moments.
    public func stop() {
        try? channel.close().wait()
        try? group.syncShutdownGracefully()
    }

    private final class ConnectionsCount: Sendable {
        private let count = Atomic<Int>(0)

        func enter() -> Bool {
            guard count.wrappingAdd(1, ordering: .relaxed).newValue <= MetricsEndpoint.connectionsMax else {
                leave()
                return false
            }
            return true
        }

        func leave() { count.wrappingSubtract(1, ordering: .relaxed) }
    }
}

/// One connection: requests come one at a time, since the pipeline holds back the next until this one is answered.
private final class MetricsHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let program: String
    private let page: MetricsEndpoint.Page
    private var request: HTTPRequestHead?
    /// Counts requests, so that a page that comes too late is recognised.
    private var number: UInt64 = 0
    private var isWaiting = false

    init(_ program: String, _ page: @escaping MetricsEndpoint.Page) {
        self.program = program
        self.page = page
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch Self.unwrapInboundIn(data) {
        case .head(let head): request = head
        case .body: break
        case .end:
            guard let request else { return }
            self.request = nil
            answer(request, context)
        }
    }

    private func answer(_ request: HTTPRequestHead, _ context: ChannelHandlerContext) {
        let path = request.uri.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false).first ?? ""
        guard request.method == .GET || request.method == .HEAD else {
            return respond(request, .methodNotAllowed, "only GET and HEAD are known here\n", context)
        }
        guard path == "/metrics" else { return respond(request, .notFound, "the metrics are at /metrics\n", context) }
        number += 1
        isWaiting = true
        let expected = number
        let (own, bound) = (NIOLoopBound(self, eventLoop: context.eventLoop), NIOLoopBound(context, eventLoop: context.eventLoop))
        let loop = context.eventLoop
        loop.scheduleTask(in: MetricsEndpoint.pageWaitMax) {
            own.value.finish(request, expected, nil, bound.value)
        }
        page { text in loop.execute { own.value.finish(request, expected, text, bound.value) } }
    }

    private func finish(_ request: HTTPRequestHead, _ expected: UInt64, _ text: String?, _ context: ChannelHandlerContext) {
        guard isWaiting, number == expected, context.channel.isActive else { return }
        isWaiting = false
        guard let text else { return respond(request, .serviceUnavailable, "\(program) is too busy to tell\n", context) }
        respond(request, .ok, text, type: MetricText.contentType, context)
    }

    private func respond(
        _ request: HTTPRequestHead, _ status: HTTPResponseStatus, _ text: String, type: String = "text/plain; charset=utf-8",
        _ context: ChannelHandlerContext
    ) {
        let body = context.channel.allocator.buffer(string: text)
        var headers = HTTPHeaders([("Content-Type", type), ("Content-Length", "\(body.readableBytes)")])
        if status == .methodNotAllowed { headers.add(name: "Allow", value: "GET, HEAD") }
        if !request.isKeepAlive { headers.add(name: "Connection", value: "close") }
        context.write(Self.wrapOutboundOut(.head(HTTPResponseHead(version: request.version, status: status, headers: headers))), promise: nil)
        if request.method != .HEAD { context.write(Self.wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.writeAndFlush(Self.wrapOutboundOut(.end(nil))).whenComplete { _ in
            if !request.isKeepAlive { bound.value.close(promise: nil) }
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // Idle for too long, or the other side has said all it wants to say and waits for nothing.
        if event is IdleStateHandler.IdleStateEvent {
            context.close(promise: nil)
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
