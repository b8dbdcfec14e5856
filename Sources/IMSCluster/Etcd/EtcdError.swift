/// Why etcd did not do what it was asked.
struct EtcdError: Error, Hashable, Sendable, CustomStringConvertible {
    enum Kind: Hashable, Sendable {
        /// It could not be asked, or its answer did not come: whether it did it is unknown.
        case unreachable
        /// It answered that it can't now: no leader, too many requests. What was asked may have been done all the same.
        case unavailable
        /// What was asked for is from before the oldest revision that is kept.
        case compacted
        /// The token has run out, or was never given.
        case unauthenticated
        /// Its database is full.
        case noSpace
        /// It won't, now or later: no permission, a request that it does not understand.
        case refused
    }

    var kind: Kind
    var description: String

    init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }

    /// An answer that is none to this request.
    static func unreadable(
        _ method: String, of server: some CustomStringConvertible, _ message: [UInt8], _ cause: any Error
    ) -> EtcdError {
        EtcdError(
            .refused,
            "the answer of \(server) to \(method), \(message.count) octets, can't be read (\(cause)); is it etcd's client port, and etcd 3.4 or newer?"
        )
    }

    /// From a gRPC status (https://grpc.github.io/grpc/core/md_doc_statuscodes.html) and etcd's message beside it.
    init(status: Int, message: String) {
        let kind: Kind =
            if message.contains("compacted") {
                .compacted
            } else if message.contains("space exceeded") {
                .noSpace
            } else {
                switch status {
                case 16: .unauthenticated
                case 3 where message.contains("invalid auth token"): .unauthenticated
                // Cancelled, unknown, deadline exceeded, aborted, unavailable, and too many requests.
                case 1, 2, 4, 8, 10, 14: .unavailable
                default: .refused
                }
            }
        self.init(
            kind,
            kind == .noSpace
                ? "etcd's database is full; compact and defragment it, then `etcdctl alarm disarm`" : "etcd: \(message)")
    }
}
