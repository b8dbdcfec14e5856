import MATSignal
import NIOCore
import NIOHTTP1
import NIOPosix

/// An address can't be listened at.
public struct HTTPEndpointError: Error, CustomStringConvertible {
    public let description: String
}

/// What is answered for a path.
package struct HTTPResource: Sendable {
    /// Asks the rest of the program; the answer may come in any thread, and its text is written in this server's own.
    package typealias Page = @Sendable (_ respond: @escaping @Sendable (_ write: @escaping @Sendable () -> String) -> Void) -> Void

    enum Content: Sendable {
        case text(String)
        case page(Page)
        /// A page of what has a text in it, the one that is asked for.
        case search(@Sendable (_ text: String) -> Page)
        /// Server-sent events: the page, again and again, for as long as somebody reads.
        case events(every: TimeAmount, Page)
    }

    var type: String
    var content: Content

    /// The same at all times.
    package static func text(_ text: String, type: String) -> HTTPResource { HTTPResource(type: type, content: .text(text)) }
    /// As things are at each request.
    package static func page(type: String, _ page: @escaping Page) -> HTTPResource { HTTPResource(type: type, content: .page(page)) }
    /// Likewise, for a text that stands behind `?find=`.
    package static func search(type: String, _ page: @escaping @Sendable (_ text: String) -> Page) -> HTTPResource {
        HTTPResource(type: type, content: .search(page))
    }
    /// As things are now and from then on (server-sent events, a line of JSON each).
    package static func events(everySeconds seconds: Int64, _ page: @escaping Page) -> HTTPResource {
        HTTPResource(type: "text/event-stream", content: .events(every: .seconds(seconds), page))
    }
}

/// What an HTTP server of a daemon serves, and to whom.
package struct HTTPSite: Sendable {
    /// Who is too busy, when a page does not come in time.
    package var program: String
    /// The configuration's section, for errors.
    package var section: String
    package var resources: [String: HTTPResource]
    /// Headers that go with everything.
    package var headers: [(String, String)] = []
    /// Answers only those who call it by its address or as localhost: otherwise a page from elsewhere could read this one through the browser of
    /// somebody who may, by a name of its own that it lets point here.
    package var wantsOwnName = false

    package init(
        program: String, section: String, resources: [String: HTTPResource], headers: [(String, String)] = [], wantsOwnName: Bool = false
    ) {
        self.program = program
        self.section = section
        self.resources = resources
        self.headers = headers
        self.wantsOwnName = wantsOwnName
    }

    /// For who asked for something else.
    fileprivate var places: String { resources.keys.sorted().joined(separator: ", ") }

    fileprivate func answersTo(_ host: String?) -> Bool {
        guard wantsOwnName else { return true }
        guard let host else { return false }
        let isBracketed = host.hasPrefix("[")
        let name = isBracketed ? host.dropFirst().prefix { $0 != "]" } : host.prefix { $0 != ":" }
        return name == "localhost" || IPAddress(String(name)) != nil
    }
}

/// `GET` over HTTP/1.1, on a thread of its own.
///
/// A request asks the rest of the program for the page and waits for it; whoever reads slowly or not at all holds up nothing but this
/// thread's other connections' memory, and there are few of those.
package final class HTTPEndpoint: Sendable {
    /// Open connections. A further one takes the place of that which has longest asked for nothing; if all are being answered, it is closed at once.
    static let connectionsMax = 32
    /// How long a connection may do nothing.
    static let idleMax = TimeAmount.seconds(60)
    /// How long a new connection may take for its first request, to the last header, however it is spread.
    static let requestMax = TimeAmount.seconds(10)
    /// How long the program may take to write the page.
    static let pageWaitMax = TimeAmount.seconds(5)

    private let group: MultiThreadedEventLoopGroup
    private let channel: any Channel

    /// Where it listens: the port asked for, or the one that the kernel chose for port 0.
    package var port: UInt16 { UInt16(clamping: channel.localAddress?.port ?? 0) }

    /// Listens. Blocks until that is done or refused; for the start of a program, and the reading of a new configuration.
    ///
    /// - Parameter address: port 0 lets the kernel choose.
    package init(address: Endpoint, _ site: HTTPSite) throws(HTTPEndpointError) {
        let connections = HTTPConnections(max: Self.connectionsMax)
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 32)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard connections.enter(channel) else { throw ChannelError.ioOnClosedChannel }
                    channel.closeFuture.whenComplete { _ in connections.leave(channel) }
                    try channel.pipeline.syncOperations.addHandler(IdleStateHandler(allTimeout: Self.idleMax))
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline(withErrorHandling: true)
                    try channel.pipeline.syncOperations.addHandler(HTTPHandler(site, connections))
                }
            }
        do {
            channel = try bootstrap.bind(host: "\(address.address)", port: Int(address.port)).wait()
        } catch {
            try? group.syncShutdownGracefully()
            throw HTTPEndpointError(
                description:
                    "\(site.section): can't listen at \(address): \(error); is something else there? Name another address at \(site.section): listen:"
            )
        }
    }

    /// Closes everything. Blocks for moments.
    package func stop() {
        try? channel.close().wait()
        try? group.syncShutdownGracefully()
    }
}

/// One connection: requests come one at a time, since the pipeline holds back the next until this one is answered.
private final class HTTPHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let site: HTTPSite
    private let connections: HTTPConnections
    /// By when the next request has to be here.
    private var deadline: Scheduled<Void>?
    private var request: HTTPRequestHead?
    /// Counts requests, so that a page that comes too late is recognised.
    private var number: UInt64 = 0
    private var isWaiting = false
    private var events: RepeatedTask?

    init(_ site: HTTPSite, _ connections: HTTPConnections) { (self.site, self.connections) = (site, connections) }

    func handlerAdded(context: ChannelHandlerContext) { wait(HTTPEndpoint.requestMax, context) }
    func handlerRemoved(context: ChannelHandlerContext) { deadline?.cancel() }

    private func wait(_ time: TimeAmount, _ context: ChannelHandlerContext) {
        connections.waits(context.channel)
        deadline?.cancel()
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        deadline = context.eventLoop.scheduleTask(in: time) { bound.value.close(promise: nil) }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch Self.unwrapInboundIn(data) {
        case .head(let head): request = head
        case .body: break
        case .end:
            guard let request else { return }
            self.request = nil
            deadline?.cancel()
            connections.isAnswered(context.channel)
            answer(request, context)
        }
    }

    private func answer(_ request: HTTPRequestHead, _ context: ChannelHandlerContext) {
        number += 1
        // RFC 9112 section 3.2: one name, no more; and none only of who speaks an older version.
        let hosts = request.headers["Host"]
        guard hosts.count == 1 || (hosts.isEmpty && request.version != .http1_1) else {
            return respond(request, .badRequest, "name one Host\n", context)
        }
        let path = request.uri.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false).first.map(String.init) ?? ""
        guard request.method == .GET || request.method == .HEAD else {
            return respond(request, .methodNotAllowed, "only GET and HEAD are known here\n", context)
        }
        guard site.answersTo(hosts.first) else {
            return respond(request, .forbidden, "ask by this server's address, or as localhost\n", context)
        }
        guard let resource = site.resources[path] else { return respond(request, .notFound, "here are \(site.places)\n", context) }
        switch resource.content {
        case .text(let text): respond(request, .ok, text, type: resource.type, context)
        case .page(let page): ask(page, request, resource.type, context)
        case .search(let search): ask(search(HTTPQuery.text(in: request.uri)), request, resource.type, context)
        case .events(let interval, let page): stream(page, every: interval, request, resource.type, context)
        }
    }

    // MARK: Pages

    private func ask(_ page: HTTPResource.Page, _ request: HTTPRequestHead, _ type: String, _ context: ChannelHandlerContext) {
        isWaiting = true
        let expected = number
        let (own, bound) = (NIOLoopBound(self, eventLoop: context.eventLoop), NIOLoopBound(context, eventLoop: context.eventLoop))
        let loop = context.eventLoop
        loop.scheduleTask(in: HTTPEndpoint.pageWaitMax) {
            own.value.finish(request, expected, nil, type, bound.value)
        }
        page { write in loop.execute { own.value.finish(request, expected, write, type, bound.value) } }
    }

    private func finish(
        _ request: HTTPRequestHead, _ expected: UInt64, _ write: (() -> String)?, _ type: String, _ context: ChannelHandlerContext
    ) {
        guard isWaiting, number == expected, context.channel.isActive else { return }
        isWaiting = false
        guard let write else { return respond(request, .serviceUnavailable, "\(site.program) is too busy to tell\n", context) }
        respond(request, .ok, write(), type: type, context)
    }

    private func respond(
        _ request: HTTPRequestHead, _ status: HTTPResponseStatus, _ text: String, type: String = "text/plain; charset=utf-8",
        _ context: ChannelHandlerContext
    ) {
        let body = context.channel.allocator.buffer(string: text)
        var headers = HTTPHeaders([("Content-Type", type), ("Content-Length", "\(body.readableBytes)")] + site.headers)
        if status == .methodNotAllowed { headers.add(name: "Allow", value: "GET, HEAD") }
        if !request.isKeepAlive { headers.add(name: "Connection", value: "close") }
        context.write(Self.wrapOutboundOut(.head(HTTPResponseHead(version: request.version, status: status, headers: headers))), promise: nil)
        if request.method != .HEAD { context.write(Self.wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        let (own, bound) = (NIOLoopBound(self, eventLoop: context.eventLoop), NIOLoopBound(context, eventLoop: context.eventLoop))
        let number = number
        context.writeAndFlush(Self.wrapOutboundOut(.end(nil))).whenComplete { _ in
            if !request.isKeepAlive { return bound.value.close(promise: nil) }
            // Unless the next came with this one.
            if own.value.number == number, bound.value.channel.isActive { own.value.wait(HTTPEndpoint.idleMax, bound.value) }
        }
    }

    // MARK: Events

    /// Goes on until the reader hangs up. One that does not keep up misses what it has no room for.
    private func stream(
        _ page: @escaping HTTPResource.Page, every interval: TimeAmount, _ request: HTTPRequestHead, _ type: String, _ context: ChannelHandlerContext
    ) {
        let headers = HTTPHeaders([("Content-Type", type), ("Cache-Control", "no-store")] + site.headers)
        context.writeAndFlush(
            Self.wrapOutboundOut(.head(HTTPResponseHead(version: request.version, status: .ok, headers: headers))), promise: nil)
        guard request.method == .GET else {
            context.writeAndFlush(Self.wrapOutboundOut(.end(nil)), promise: nil)
            return
        }
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        let loop = context.eventLoop
        events = loop.scheduleRepeatedTask(initialDelay: .zero, delay: interval) { _ in
            guard bound.value.channel.isActive, bound.value.channel.isWritable else { return }
            page { write in
                loop.execute {
                    guard bound.value.channel.isActive, bound.value.channel.isWritable else { return }
                    let event = bound.value.channel.allocator.buffer(string: "data: \(write())\n\n")
                    bound.value.writeAndFlush(Self.wrapOutboundOut(.body(.byteBuffer(event))), promise: nil)
                }
            }
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        events?.cancel()
        events = nil
        context.fireChannelInactive()
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
