import FoundationEssentials
import SwiftProtobuf

// Values to etcd's messages and back; etcd.proto has the messages. What a message has beyond them is passed over.

extension SwiftProtobuf.Message {
    /// What could be refused does not occur: these messages have no required fields, and are far from 2 GB.
    fileprivate var octets: [UInt8] { (try? serializedBytes()) ?? [] }
}

extension EtcdRequest {
    var octets: [UInt8] {
        switch self {
        case .range(let range): return range.message.octets
        case .transaction(let transaction): return transaction.message.octets
        case .grantLease(let seconds): return Etcdserverpb_LeaseGrantRequest.with { $0.ttl = seconds }.octets
        case .authenticate(let user, let password):
            let request = Etcdserverpb_AuthenticateRequest.with {
                $0.name = user
                $0.password = password
            }
            return request.octets
        }
    }
}

extension EtcdRange {
    fileprivate var message: Etcdserverpb_RangeRequest {
        .with {
            $0.key = Data(key)
            $0.rangeEnd = Data(end)
            $0.limit = Int64(clamping: limit)
            $0.revision = revision
            $0.serializable = isLocal
        }
    }
}

extension EtcdPut {
    fileprivate var message: Etcdserverpb_PutRequest {
        .with {
            $0.key = Data(key)
            $0.value = Data(value)
            $0.lease = lease
        }
    }
}

extension EtcdCompare {
    fileprivate var message: Etcdserverpb_Compare {
        .with {
            switch self {
            case .absent(let key):
                $0.target = .create
                $0.key = Data(key)
                $0.createRevision = 0
            case .less(let key, let value):
                $0.result = .less
                $0.target = .value
                $0.key = Data(key)
                $0.value = Data(value)
            case .greater(let key, let value):
                $0.result = .greater
                $0.target = .value
                $0.key = Data(key)
                $0.value = Data(value)
            case .modifiedAt(let key, let revision):
                $0.target = .mod
                $0.key = Data(key)
                $0.modRevision = revision
            }
        }
    }
}

extension EtcdOperation {
    fileprivate var message: Etcdserverpb_RequestOp {
        .with {
            switch self {
            case .range(let range): $0.requestRange = range.message
            case .put(let put): $0.requestPut = put.message
            case .delete(let key): $0.requestDeleteRange = .with { $0.key = Data(key) }
            case .transaction(let transaction): $0.requestTxn = transaction.message
            }
        }
    }
}

extension EtcdTransaction {
    fileprivate var message: Etcdserverpb_TxnRequest {
        .with {
            $0.compare = compare.map(\.message)
            $0.success = success.map(\.message)
            $0.failure = failure.map(\.message)
        }
    }
}

/// Answers' fields that nobody reads are not kept.
private let answers: BinaryDecodingOptions = {
    var options = BinaryDecodingOptions()
    options.discardUnknownFields = true
    return options
}()

extension EtcdResponse {
    init(to request: EtcdRequest, _ octets: [UInt8]) throws {
        switch request {
        case .range: self.init(try Etcdserverpb_RangeResponse(serializedBytes: octets, options: answers))
        case .transaction: self.init(try Etcdserverpb_TxnResponse(serializedBytes: octets, options: answers))
        case .grantLease:
            let answer = try Etcdserverpb_LeaseGrantResponse(serializedBytes: octets, options: answers)
            self.init(revision: answer.header.revision, term: answer.header.raftTerm, lease: answer.id)
        case .authenticate:
            let answer = try Etcdserverpb_AuthenticateResponse(serializedBytes: octets, options: answers)
            self.init(revision: answer.header.revision, term: answer.header.raftTerm, token: answer.token)
        }
    }

    private init(_ range: Etcdserverpb_RangeResponse) {
        self.init(
            revision: range.header.revision, term: range.header.raftTerm, pairs: range.kvs.map { EtcdKeyValue($0) }, hasMore: range.more)
    }

    private init(_ transaction: Etcdserverpb_TxnResponse) {
        let responses = transaction.responses.map { operation in
            switch operation.response {
            case .responseRange(let range): EtcdResponse(range)
            case .responseTxn(let inner): EtcdResponse(inner)
            case nil: EtcdResponse()
            }
        }
        self.init(
            revision: transaction.header.revision, term: transaction.header.raftTerm, succeeded: transaction.succeeded, responses: responses)
    }
}

extension EtcdKeyValue {
    fileprivate init(_ pair: Etcdserverpb_KeyValue) {
        self.init(key: Array(pair.key), modRevision: pair.modRevision, value: Array(pair.value))
    }
}

extension EtcdWatch {
    /// Large answers come in fragments.
    var octets: [UInt8] {
        let create = Etcdserverpb_WatchCreateRequest.with {
            $0.key = Data(key)
            $0.rangeEnd = Data(end)
            $0.startRevision = fromRevision
            $0.fragment = true
        }
        return Etcdserverpb_WatchRequest.with { $0.createRequest = create }.octets
    }
}

extension EtcdWatchResponse {
    init(_ octets: [UInt8]) throws {
        let answer = try Etcdserverpb_WatchResponse(serializedBytes: octets, options: answers)
        self.init(
            revision: answer.header.revision, isCanceled: answer.canceled, compactRevision: answer.compactRevision,
            cancelReason: answer.cancelReason, isFragment: answer.fragment,
            events: answer.events.map { Event(isDelete: $0.type == .delete, pair: EtcdKeyValue($0.kv)) })
    }
}
