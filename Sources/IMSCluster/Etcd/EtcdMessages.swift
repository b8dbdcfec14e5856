// Those of etcd's messages, and of their fields, that are used here (api/etcdserverpb/rpc.proto and mvccpb/kv.proto of etcd 3.4).
// Field numbers stand beside each field as they do there.

/// A key with its value.
struct EtcdKeyValue: Equatable, Sendable {
    var key: [UInt8] = []  // 1
    var modRevision: Int64 = 0  // 3
    var value: [UInt8] = []  // 5

    init() {}

    init(_ reader: ProtobufReader) throws(ProtobufReader.Malformed) {
        var reader = reader
        while let field = try reader.next() {
            switch field.number {
            case 1: key = field.octets
            case 3: modRevision = field.signed
            case 5: value = field.octets
            default: break
            }
        }
    }
}

/// Keys from `key` to before `end`, or the one key if `end` is empty.
struct EtcdRange: Equatable, Sendable {
    var key: [UInt8]  // 1
    var end: [UInt8] = []  // 2
    var limit: UInt64 = 0  // 3
    /// As of this revision; 0 for the newest.
    var revision: Int64 = 0  // 4

    func encode(into writer: inout ProtobufWriter) {
        writer.octets(1, key)
        writer.octets(2, end)
        writer.number(3, limit)
        writer.number(4, UInt64(bitPattern: revision))
    }
}

struct EtcdPut: Equatable, Sendable {
    var key: [UInt8]  // 1
    var value: [UInt8]  // 2
    /// The lease that the key ends with; 0 for none.
    var lease: Int64 = 0  // 3

    func encode(into writer: inout ProtobufWriter) {
        writer.octets(1, key)
        writer.octets(2, value)
        writer.number(3, UInt64(bitPattern: lease))
    }
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

    func encode(into writer: inout ProtobufWriter) {
        // result 1: EQUAL 0, GREATER 1, LESS 2; target 2: CREATE 1, MOD 2, VALUE 3; key 3
        switch self {
        case .absent(let key):
            writer.number(2, 1)
            writer.octets(3, key)
            writer.numberEvenZero(5, 0)
        case .less(let key, let value):
            writer.number(1, 2)
            writer.number(2, 3)
            writer.octets(3, key)
            writer.octets(7, value)
        case .greater(let key, let value):
            writer.number(1, 1)
            writer.number(2, 3)
            writer.octets(3, key)
            writer.octets(7, value)
        case .modifiedAt(let key, let revision):
            writer.number(2, 2)
            writer.octets(3, key)
            writer.numberEvenZero(6, UInt64(bitPattern: revision))
        }
    }
}

indirect enum EtcdOperation: Equatable, Sendable {
    case range(EtcdRange)  // 1
    case put(EtcdPut)  // 2
    case delete([UInt8])  // 3: key 1
    case transaction(EtcdTransaction)  // 4

    func encode(into writer: inout ProtobufWriter) {
        switch self {
        case .range(let range): writer.message(1) { range.encode(into: &$0) }
        case .put(let put): writer.message(2) { put.encode(into: &$0) }
        case .delete(let key): writer.message(3) { $0.octets(1, key) }
        case .transaction(let transaction): writer.message(4) { transaction.encode(into: &$0) }
        }
    }
}

/// All comparisons are made on what was there before; then one of the two parts is done as a whole.
struct EtcdTransaction: Equatable, Sendable {
    var compare: [EtcdCompare] = []  // 1
    var success: [EtcdOperation] = []  // 2
    var failure: [EtcdOperation] = []  // 3

    func encode(into writer: inout ProtobufWriter) {
        for compare in compare { writer.message(1) { compare.encode(into: &$0) } }
        for operation in success { writer.message(2) { operation.encode(into: &$0) } }
        for operation in failure { writer.message(3) { operation.encode(into: &$0) } }
    }
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

    var octets: [UInt8] {
        var writer = ProtobufWriter()
        switch self {
        case .range(let range): range.encode(into: &writer)
        case .transaction(let transaction): transaction.encode(into: &writer)
        case .grantLease(let seconds): writer.number(1, UInt64(bitPattern: seconds))
        case .authenticate(let user, let password):
            writer.text(1, user)
            writer.text(2, password)
        }
        return writer.octets
    }
}

/// What a request or one of a transaction's operations came to. One type for all, since each has few fields.
struct EtcdResponse: Equatable, Sendable {
    /// The store's revision when it was answered; in header 1, field 3.
    var revision: Int64 = 0
    /// Range: kvs 2, more 3.
    var pairs: [EtcdKeyValue] = []
    var hasMore = false
    /// Transaction: succeeded 2, responses 3.
    var succeeded = false
    var responses: [EtcdResponse] = []
    /// LeaseGrant: ID 2.
    var lease: Int64 = 0
    /// Authenticate: token 2.
    var token = ""

    init() {}

    init(to request: EtcdRequest, _ octets: [UInt8]) throws(ProtobufReader.Malformed) {
        let reader = ProtobufReader(octets)
        switch request {
        case .range: try self.init(range: reader)
        case .transaction: try self.init(transaction: reader)
        case .grantLease:
            try self.init(reader) { response, field throws(ProtobufReader.Malformed) in
                if field.number == 2 { response.lease = field.signed }
            }
        case .authenticate:
            try self.init(reader) { response, field throws(ProtobufReader.Malformed) in
                if field.number == 2 { response.token = field.text }
            }
        }
    }

    private init(
        _ reader: ProtobufReader,
        _ take: (inout EtcdResponse, ProtobufReader.Field) throws(ProtobufReader.Malformed) -> Void
    ) throws(ProtobufReader.Malformed) {
        self.init()
        var reader = reader
        while let field = try reader.next() {
            if field.number == 1 { revision = try Self.revision(field.message) } else { try take(&self, field) }
        }
    }

    private init(range reader: ProtobufReader) throws(ProtobufReader.Malformed) {
        try self.init(reader) { response, field throws(ProtobufReader.Malformed) in
            switch field.number {
            case 2: response.pairs.append(try EtcdKeyValue(field.message))
            case 3: response.hasMore = field.flag
            default: break
            }
        }
    }

    private init(transaction reader: ProtobufReader) throws(ProtobufReader.Malformed) {
        try self.init(reader) { response, field throws(ProtobufReader.Malformed) in
            switch field.number {
            case 2: response.succeeded = field.flag
            case 3: response.responses.append(try EtcdResponse(operation: field.message))
            default: break
            }
        }
    }

    private init(operation reader: ProtobufReader) throws(ProtobufReader.Malformed) {
        self.init()
        var reader = reader
        while let field = try reader.next() {
            switch field.number {
            case 1: self = try EtcdResponse(range: field.message)
            case 4: self = try EtcdResponse(transaction: field.message)
            default: break
            }
        }
    }

    static func revision(_ header: ProtobufReader) throws(ProtobufReader.Malformed) -> Int64 {
        var header = header
        var revision: Int64 = 0
        while let field = try header.next() { if field.number == 3 { revision = field.signed } }
        return revision
    }
}

/// Asks for what is written between two keys, from a revision on.
struct EtcdWatch: Equatable, Sendable {
    static let method = "/etcdserverpb.Watch/Watch"

    var key: [UInt8]
    var end: [UInt8]
    var fromRevision: Int64

    /// A WatchRequest with create_request 1: key 1, range_end 2, start_revision 3, fragment 8 (large answers come in parts).
    var octets: [UInt8] {
        var writer = ProtobufWriter()
        writer.message(1) {
            $0.octets(1, key)
            $0.octets(2, end)
            $0.number(3, UInt64(bitPattern: fromRevision))
            $0.flag(8, true)
        }
        return writer.octets
    }
}

struct EtcdWatchResponse: Equatable, Sendable {
    struct Event: Equatable, Sendable {
        var isDelete = false
        var pair = EtcdKeyValue()
    }

    var revision: Int64 = 0  // header 1
    var isCanceled = false  // 4
    /// What came before this revision is gone: the watch began too far back.
    var compactRevision: Int64 = 0  // 5
    var cancelReason = ""  // 6
    /// More of the same revision follows.
    var isFragment = false  // 7
    var events: [Event] = []  // 11

    init() {}

    init(_ octets: [UInt8]) throws(ProtobufReader.Malformed) {
        var reader = ProtobufReader(octets)
        while let field = try reader.next() {
            switch field.number {
            case 1: revision = try EtcdResponse.revision(field.message)
            case 4: isCanceled = field.flag
            case 5: compactRevision = field.signed
            case 6: cancelReason = field.text
            case 7: isFragment = field.flag
            case 11:
                var event = Event()
                var inner = field.message
                while let part = try inner.next() {
                    switch part.number {
                    case 1: event.isDelete = part.value == 1
                    case 2: event.pair = try EtcdKeyValue(part.message)
                    default: break
                    }
                }
                events.append(event)
            default: break
            }
        }
    }
}
