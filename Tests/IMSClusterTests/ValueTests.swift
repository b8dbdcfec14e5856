import IMSCore
import MATSignal
import MATTesting
import MappingMemory
import Testing

@testable import IMSCluster

extension [[UInt8]] {
    /// Where the first stands that does not precede; they are sorted.
    fileprivate func partitionPoint(_ precedes: ([UInt8]) -> Bool) -> Int {
        var range = 0..<count
        while !range.isEmpty {
            let middle = range.lowerBound + range.count / 2
            range = precedes(self[middle]) ? middle + 1..<range.upperBound : range.lowerBound..<middle
        }
        return range.lowerBound
    }
}

@Suite("What is in etcd")
struct ValueTests {
    private let keys = ClusterKeys(prefix: "/mat/ims/")

    @Test("Keys are written as documented, and parsed back; others are none of ours")
    func keyForms() throws {
        let hoa = try #require(IPPrefix("192.0.2.16/28"))
        let id = InstanceID(number: 0xAB)
        let all: [(ClusterKeys.Key, String)] = [
            (.certificate(hoa), "/mat/ims/c/00000000000000000000ffffc0000210/124"),
            (.format, "/mat/ims/f"),
            (.row(.visitorGate, key: [0x0A, 0xBC]), "/mat/ims/g/0abc"),
            (.row(.token, key: [0, 0, 0, 0, 0, 0, 0, 7]), "/mat/ims/j/0000000000000007"),
            (.row(.lease, key: hoa.address.octets + [124]), "/mat/ims/l/00000000000000000000ffffc0000210/124"),
            (.instance(id), "/mat/ims/i/00000000000000ab"),
            (.cookies, "/mat/ims/k"),
            (.mapping(hoa), "/mat/ims/m/00000000000000000000ffffc0000210/124"),
            (.binding(id, hoa), "/mat/ims/n/00000000000000ab/00000000000000000000ffffc0000210/124"),
            (
                .handOver(id, to: hoa, of: IPPrefix(address("2001:db8::1"))),
                "/mat/ims/p/00000000000000ab/00000000000000000000ffffc0000210/124/20010db8000000000000000000000001/128"
            ),
            (.remembered(hoa), "/mat/ims/r/00000000000000000000ffffc0000210/124"),
            (
                .subscription(id, hoa, Endpoint(address("2001:db8::1"), port: 6289)),
                "/mat/ims/s/00000000000000ab/00000000000000000000ffffc0000210/124/6289/20010db8000000000000000000000001"
            ),
        ]
        for (key, text) in all {
            #expect(String(decoding: keys.octets(key), as: UTF8.self) == text)
            #expect(keys.parse(Array(text.utf8)) == key)
            #expect(keys.octets(key).lexicographicallyPrecedes(keys.followed.end))
            #expect(!keys.octets(key).lexicographicallyPrecedes(keys.followed.key))
        }
        for text in [
            "", "/mat/ims/", "/mat/ims/m", "/mat/ims/m/xyz/128", "/mat/ims/m/00000000000000000000ffffc0000210/129", "/other/f",
            "/mat/ims/m/00000000000000000000ffffc0000211/124", "/mat/ims/i/+0000000000000ab", "/mat/ims/z/1",
        ] {
            #expect(keys.parse(Array(text.utf8)) == nil, "\(text)")
        }
    }

    @Test("Values come back as they were; every truncation and another form is refused")
    func valueForms() throws {
        let node = try TestNode("192.0.2.1")
        let mapping = try node.stored(1000)
        let secrets = [
            CookieSecret(octets: [UInt8](repeating: 1, count: 16), madeAt: 2),
            CookieSecret(octets: [UInt8](repeating: 3, count: 16), madeAt: 1),
        ]
        #expect(ClusterValue.mapping(ClusterValue.encode(mapping)) == mapping)
        #expect(ClusterValue.certificate(ClusterValue.encode(node.certificate)) == node.certificate)
        #expect(ClusterValue.secrets(ClusterValue.encode(secrets)) == secrets)
        #expect(ClusterValue.signOfLife(ClusterValue.encode(signOfLife: 7, pushedUpTo: 9)) ?? (0, 0) == (7, 9))
        // As imsd 0.1.0 writes them.
        #expect(ClusterValue.signOfLife([1, 0, 0, 0, 0, 0, 0, 0, 7]) ?? (0, 1) == (7, 0))
        let old: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0x27, 0x10] + address("10.0.0.1").octets
        #expect(ClusterValue.subscription(old, now: 7000)?.lasts == .milliseconds(3000))
        #expect(ClusterValue.subscription(old, now: 70_000)?.lasts == .zero)
        let remembered = try #require(ClusterValue.remembered(ClusterValue.encode(mapping.certified, isConfirmed: true)))
        #expect(remembered.certified == mapping.certified && remembered.isConfirmed)
        let subscription = try #require(
            ClusterValue.subscription(
                ClusterValue.encode(subscriptionEnding: 5000, grantedAt: 2000, local: address("10.0.0.1")), now: 9_000_000))
        // Whatever the clocks say.
        #expect(subscription.lasts == .seconds(3) && subscription.local == address("10.0.0.1"))
        #expect(ClusterValue.binding(ClusterValue.encode(bindingEnding: 130_000, boundAt: 10_000)) == .seconds(120))
        #expect(ClusterValue.binding(ClusterValue.encode(bindingEnding: .max, boundAt: 0)) == .seconds(600))
        let endless = ClusterValue.encode(subscriptionEnding: .max, grantedAt: 0, local: address("10.0.0.1"))
        #expect(ClusterValue.subscription(endless, now: 0)?.lasts == .seconds(450))

        let octets = ClusterValue.encode(mapping)
        for count in 0..<octets.count {
            let prefix = Array(octets.prefix(count))
            #expect(ClusterValue.mapping(prefix) == nil)
            #expect(ClusterValue.certificate(Array(ClusterValue.encode(node.certificate).prefix(count % 149))) == nil)
        }
        var otherForm = octets
        otherForm[0] = 2
        #expect(ClusterValue.mapping(otherForm) == nil)
        // As it is read at a start, undecoded.
        var packed = PackedMappings()
        #expect(ClusterValue.append(octets, to: &packed) && !ClusterValue.append(otherForm, to: &packed))
        #expect(packed.stored == [mapping])
    }

    @Test("Pages bring every key once, in order, and none is asked for with a long rest behind it")
    func pages() throws {
        var generator = SeededGenerator(seed: 11)
        var all: [[UInt8]] = [.cookies, .format, .instance(InstanceID(number: 1)), .instance(InstanceID(number: 2))].map {
            keys.octets($0)
        }
        // Certificates thinly all over IPv6, mappings densely in an IPv4 prefix, in clusters far apart, and at both ends.
        for number in 0..<900 as Range<UInt64> {
            all.append(
                keys.octets(.certificate(IPPrefix(IPAddress(high: .random(in: 0 ... .max, using: &generator), low: number)))))
            all.append(keys.octets(.mapping(IPPrefix(IPAddress(ipv4: 0x0A00_0000 + UInt32(number) * 3)))))
            all.append(keys.octets(.mapping(IPPrefix(IPAddress(high: (number / 300) << 61 | 1, low: number)))))
            all.append(keys.octets(.mapping(IPPrefix(IPAddress(high: .max, low: .max - number)))))
            all.append(keys.octets(.remembered(IPPrefix(IPAddress(high: 0, low: number)))))
            let subscriber = Endpoint(IPAddress(ipv4: UInt32(number)), port: 6289)
            for instance in [3, .max] as [UInt64] {
                all.append(
                    keys.octets(
                        .subscription(InstanceID(number: instance), IPPrefix(IPAddress(ipv4: 0xC000_0200 + UInt32(number / 3))), subscriber)))
            }
        }
        all.sort { $0.lexicographicallyPrecedes($1) }
        let limit: UInt64 = 100
        var cursor = PageCursor(keys)
        var found: [[UInt8]] = []
        var walked = 0
        var pages = 0
        while true {
            let range = cursor.range(limit: limit, revision: 1)
            let start = all.partitionPoint { $0.lexicographicallyPrecedes(range.key) }
            let inside = all[start..<all.partitionPoint { $0.lexicographicallyPrecedes(range.end) }]
            walked += inside.count
            pages += 1
            let page = inside.prefix(Int(limit)).map { key in
                var pair = EtcdKeyValue()
                pair.key = key
                return pair
            }
            found += page.map(\.key)
            guard cursor.advance(page, hasMore: inside.count > page.count, limit: limit), pages < 2000 else { break }
        }
        #expect(found == all)
        #expect(walked < all.count * 10 && pages < 500, "\(walked) walked in \(pages) pages for \(all.count)")
    }

    @Test("Under certificates of one beginning octets compare as versions do, whosever the keys are; etcd puts only over such at once")
    func order() throws {
        var mappings: [StoredMapping] = []
        for seed in [1, 2] as [UInt8] {
            for notBefore in [5, 255, 256] as [UInt64] {
                let node = try TestNode("192.0.2.1", seed: seed, notBefore: notBefore)
                for sequence in [1, 255, 256, 0x1_0000, 1 << 60] as [UInt64] { mappings.append(try node.stored(sequence)) }
            }
        }
        for a in mappings {
            for b in mappings {
                let (held, new) = (a.certified.version, b.certified.version)
                let octets = ClusterValue.encode(a)
                let isPutAtOnce =
                    ClusterValue.beginning(new).lexicographicallyPrecedes(octets)
                    && octets.lexicographicallyPrecedes(ClusterValue.version(new))
                #expect(isPutAtOnce == (new.isNewer(than: held) && held.notBefore == new.notBefore), "\(held) \(new)")
            }
        }
    }

    @Test("A mapping as imsd 0.1.0 wrote it is read")
    func writtenBefore() throws {
        let mapping = try TestNode("192.0.2.1").stored(0x0102)
        var octets: [UInt8] = [1, 0, 0, 1, 0xA0, 0xC4, 0x50, 0x6C, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 1, 2]
        octets += address("198.51.100.1").octets + [0x18, 0x91] + address("203.0.113.1").octets
        octets += mapping.certified.certificate.octets + mapping.certified.mapping.signature.octets + mapping.record.octets
        #expect(ClusterValue.mapping(octets) == mapping)
        #expect(ClusterValue.encode(mapping) == octets, "and imsd 0.1.0 reads what this one writes")
    }

    @Test("An answer that is none of etcd's is refused with its cause, who gave it, to what, and what to look at")
    func unreadableAnswer() {
        let request = EtcdRequest.range(EtcdRange(key: [1], end: [2], limit: 1))
        let answer: [UInt8] = [0xFF, 0xFF]
        #expect {
            try EtcdResponse(to: request, answer)
        } throws: { cause in
            let error = EtcdError.unreadable(request.method, of: "10.0.0.1:2379", answer, cause)
            return error.kind == .refused && "\(error)".hasPrefix("the answer of 10.0.0.1:2379 to \(request.method), 2 octets, can't be read (")
                && "\(error)".contains("alformed") && "\(error)".hasSuffix("is it etcd's client port, and etcd 3.4 or newer?")
        }
    }

    @Test("Protocol buffers: vectors written by protoc, and no octets that trap")
    func protobuf() throws {
        // printf 'key: "k" range_end: "l" limit: 300 revision: 7' | protoc --encode=etcdserverpb.RangeRequest rpc.proto | xxd -p
        let range = EtcdRange(key: Array("k".utf8), end: Array("l".utf8), limit: 300, revision: 7)
        #expect(EtcdRequest.range(range).octets == [0x0A, 1, 0x6B, 0x12, 1, 0x6C, 0x18, 0xAC, 0x02, 0x20, 7])
        // compare: { target: CREATE key: "k" create_revision: 0 } success: { request_put: { key: "k" value: "v" lease: 9 } }
        let transaction = EtcdTransaction(
            compare: [.absent(Array("k".utf8))], success: [.put(EtcdPut(key: Array("k".utf8), value: Array("v".utf8), lease: 9))])
        #expect(
            EtcdRequest.transaction(transaction).octets == [
                0x0A, 7, 0x10, 1, 0x1A, 1, 0x6B, 0x28, 0, 0x12, 10, 0x12, 8, 0x0A, 1, 0x6B, 0x12, 1, 0x76, 0x18, 9,
            ])
        // header: { revision: 300 } kvs: { key: "k" mod_revision: 5 value: "v" } more: true
        let answer: [UInt8] = [0x0A, 3, 0x18, 0xAC, 2, 0x12, 8, 0x0A, 1, 0x6B, 0x18, 5, 0x2A, 1, 0x76, 0x18, 1]
        let response = try EtcdResponse(to: .range(range), answer)
        #expect(
            response.revision == 300 && response.hasMore && response.pairs.first?.key == [0x6B]
                && response.pairs.first?.modRevision == 5)
        for count in 0..<answer.count { _ = try? EtcdResponse(to: .range(range), Array(answer.prefix(count))) }
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            let noise = (0..<Int.random(in: 0...64, using: &generator)).map { _ in
                UInt8.random(in: .min ... .max, using: &generator)
            }
            _ = try? EtcdResponse(to: .transaction(transaction), noise)
            _ = try? EtcdWatchResponse(noise)
        }
    }
}
