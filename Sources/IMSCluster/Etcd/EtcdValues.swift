// What is asked of etcd and what it answers, as the cluster's decisions have it: each case carries what it needs, and nothing that etcd knows
// beyond. EtcdValues+Wire.swift turns them into etcd's messages and back.

/// A key with its value.
struct EtcdKeyValue: Equatable, Sendable, CustomStringConvertible {
    var key: [UInt8] = []
    var modRevision: Int64 = 0
    var value: [UInt8] = []

    /// Where it is found with etcdctl. Not its value, which may be a secret.
    var description: String { "etcd's \(String(decoding: key, as: UTF8.self)) (\(value.count) octets, of revision \(modRevision))" }
}

/// Keys from `key` to before `end`, or the one key if `end` is empty.
struct EtcdRange: Equatable, Sendable {
    var key: [UInt8]
    var end: [UInt8] = []
    var limit: UInt64 = 0
    /// As of this revision; 0 for the newest.
    var revision: Int64 = 0
    /// As the member that is asked has it, without a word to the others: it may be old, and comes without a quorum too.
    var isLocal = false
}

struct EtcdPut: Equatable, Sendable {
    var key: [UInt8]
    var value: [UInt8]
    /// The lease that the key ends with; 0 for none.
    var lease: Int64 = 0
}

/// What must hold of a key for a transaction's `success` part to run.
enum EtcdCompare: Equatable, Sendable {
    /// There is no such key.
    case absent([UInt8])
    /// There is such a key, and its value sorts before this one octet by octet.
    case less([UInt8], than: [UInt8])
    /// There is such a key, and its value sorts behind this one; one that begins with it and is longer does.
    case greater([UInt8], than: [UInt8])
    /// It was last written at this revision; 0: there is no such key.
    case modifiedAt([UInt8], Int64)
}

indirect enum EtcdOperation: Equatable, Sendable {
    case range(EtcdRange)
    case put(EtcdPut)
    case delete([UInt8])
    case transaction(EtcdTransaction)
}

/// All comparisons are made on what was there before; then one of the two parts is done as a whole.
struct EtcdTransaction: Equatable, Sendable {
    var compare: [EtcdCompare] = []
    var success: [EtcdOperation] = []
    var failure: [EtcdOperation] = []
}

enum EtcdRequest: Equatable, Sendable {
    case range(EtcdRange)
    case transaction(EtcdTransaction)
    /// A lease of this many seconds.
    case grantLease(seconds: Int64)
    case authenticate(user: String, password: String)

    var method: String {
        switch self {
        case .range: "/etcdserverpb.KV/Range"
        case .transaction: "/etcdserverpb.KV/Txn"
        case .grantLease: "/etcdserverpb.Lease/LeaseGrant"
        case .authenticate: "/etcdserverpb.Auth/Authenticate"
        }
    }
}

/// What a request or one of a transaction's operations came to. One type for all, since each has few fields.
struct EtcdResponse: Equatable, Sendable {
    /// The store's revision when it was answered.
    var revision: Int64 = 0
    /// Of the leader that the member follows, or wants to be: it grows with each election. 0 if it was not told.
    var term: UInt64 = 0
    /// Of a range.
    var pairs: [EtcdKeyValue] = []
    var hasMore = false
    /// Of a transaction: whether its comparisons held, and what each operation of the part that was done came to.
    var succeeded = false
    var responses: [EtcdResponse] = []
    /// That was granted.
    var lease: Int64 = 0
    /// That authenticates from now on.
    var token = ""
}

/// Asks for what is written between two keys, from a revision on.
struct EtcdWatch: Equatable, Sendable {
    static let method = "/etcdserverpb.Watch/Watch"

    var key: [UInt8]
    var end: [UInt8]
    var fromRevision: Int64
}

struct EtcdWatchResponse: Equatable, Sendable {
    struct Event: Equatable, Sendable {
        var isDelete = false
        var pair = EtcdKeyValue()
    }

    var revision: Int64 = 0
    var isCanceled = false
    /// What came before this revision is gone: the watch began too far back.
    var compactRevision: Int64 = 0
    var cancelReason = ""
    /// More of the same revision follows.
    var isFragment = false
    var events: [Event] = []
}
