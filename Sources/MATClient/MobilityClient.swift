import MATControl
import MATDNS
import MATRuntime
import MATSignal

/// What went wrong here, in words for people.
public struct ClientError: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
}

/// Looks home addresses up, watches them, and asks the host's node agent for visited homes.
///
/// ```swift
/// let client = try MobilityClient()
/// print(try await client.lookUp(hoa))
/// for await news in client.watch(hoa) { print(news) }
/// ```
/// Looking up and watching need neither a node agent nor privileges: the DNS names the mapping servers, and what they answer is checked
/// against the keys that the DNS gives. A client has a thread and a socket of its own, and may be used from everywhere.
public final class MobilityClient: Sendable {
    public struct Options: Hashable, Sendable {
        /// DNS servers to ask; those of /etc/resolv.conf if empty.
        public var resolvers: [Endpoint] = []
        /// Whether what nobody has validated (DNSSEC) counts for nothing, a denial too.
        public var requiresDNSSEC = false
        /// Where the host's node agent, matd, takes requests.
        public var control = "/run/matd/control.sock"

        public init() {}

        /// With the DNS servers that this host's node agent asks: what `dns` in its configuration says, so that both see the same. Where there is no
        /// such file, or it names none, those of /etc/resolv.conf.
        ///
        /// - Throws: if the file is there and can't be read, or `dns` in it is wrong: then nobody knows whom the agent asks.
        public static func ofNode(configuration path: String = "/etc/matd/matd.yaml") throws(ClientError) -> Options {
            var options = Options()
            do throws(ConfigurationError) {
                guard let dns = try NodeNameServers(configuration: path) else { return options }
                (options.resolvers, options.requiresDNSSEC) = (dns.servers, dns.requiresDNSSEC)
                return options
            } catch {
                throw ClientError(description: "\(path) may name others to ask (`dns`), and was not read: \(error.problems.first?.reason ?? "")")
            }
        }
    }

    private let thread: ClientThread
    private let control: String

    public init(_ options: Options = Options()) throws(ClientError) {
        do throws(SystemError) {
            thread = try ClientThread(ClientShell(resolvers: options.resolvers, requiresDNSSEC: options.requiresDNSSEC))
            control = options.control
        } catch {
            throw ClientError(description: error.description)
        }
    }

    deinit { thread.post { $0.stop() } }

    // MARK: Home addresses

    /// Where a home address is now. Takes a few round trips, and at most some 20 s where names and servers are silent.
    ///
    /// - Throws: why nothing is known. That never means that the address is a plain one.
    public func lookUp(_ hoa: HomeAddress) async throws(LookUpFailure) -> Whereabouts {
        let news: WatchNews = await withCheckedContinuation { continuation in
            thread.post { shell in
                var news = WatchNews.failed(LookUpFailure(.ended, "the client has ended"))
                let listener = ClientShell.Listener(tell: { news = $0 }, end: { continuation.resume(returning: news) })
                guard shell.follow(hoa, .once, listener) == nil else { return }
                continuation.resume(returning: .failed(.overload))
            }
        }
        switch news {
        case .found(let place): return place
        case .failed(let failure): throw failure
        }
    }

    /// Where a home address is, and where it goes.
    ///
    /// The first element comes when the first question is answered, and each further one when something else is true: a new place, or that
    /// nobody can say any more. The mapping server is asked to tell of changes; where it does not do so for strangers, they are seen within 30 s. The
    /// stream ends only with who reads it; one that reads slowly misses what is not true any more.
    public func watch(_ hoa: HomeAddress) -> AsyncStream<WatchNews> {
        let (stream, continuation) = AsyncStream<WatchNews>.makeStream(bufferingPolicy: .bufferingNewest(1))
        let watched = Watched()
        // The stream keeps the client.
        continuation.onTermination = { [self] _ in thread.post { shell in watched.id.map(shell.end) } }
        thread.post { shell in
            let listener = ClientShell.Listener(tell: { continuation.yield($0) }, end: { continuation.finish() })
            watched.id = shell.follow(hoa, .watch, listener)
            guard watched.id == nil else { return }
            continuation.yield(.failed(.overload))
            continuation.finish()
        }
        return stream
    }

    /// What a watch is to the core; used in the loop's thread only.
    private final class Watched: @unchecked Sendable {
        var id: ClientCore.FollowingID?
    }

    // MARK: Visited homes

    /// Asks the host's node agent for a home address of the network that the host is in (protocol.md section 12, "Visitors").
    ///
    /// The address is one of the host's as long as the result lives: bind sockets to it, and their connections go on when the host moves to other
    /// networks. The agent's configuration has to say `visited: yes`, and its control socket has to be open to who asks.
    ///
    /// - Throws: why there is none: no agent, no permission, a network that lends none, a refusal.
    public func visitedHome(_ family: AddressFamily) async throws(ClientError) -> VisitedHome {
        let control = control
        let result: Result<VisitedHome.Held, ClientError> = await withCheckedContinuation { continuation in
            // It waits for the agent, which waits for a server.
            let begun: Void? = try? ClientThread.detach { continuation.resume(returning: VisitedHome.Held.ask(control, family)) }
            if begun == nil { continuation.resume(returning: .failure(ClientError(description: "no thread can be made"))) }
        }
        return VisitedHome(try result.get(), of: self, thread)
    }
}

extension LookUpFailure {
    static let overload = LookUpFailure(.overload, "\(ClientCore.followingsMax) home addresses are looked up and watched already")
}
