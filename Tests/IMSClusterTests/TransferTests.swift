import IMS
import IMSCore
import MappingMemory
import Testing

@testable import IMSCluster

@Suite(
    "From a file to a cluster and back", .serialized,
    .enabled(if: EtcdMembers.obstacle == nil, "etcd is not installed; deploy/install-packages installs it"))
struct TransferTests {
    private func read(_ session: StoreSession) throws -> [TransferLine] {
        var lines: [TransferLine] = []
        let unreadable = try session.read { (line: TransferLine) throws(StoreError) in lines.append(line) }
        #expect(unreadable.isEmpty)
        return lines
    }

    private func mappings(_ lines: [TransferLine]) -> Set<StoredMapping> {
        Set(lines.compactMap { if case .mapping(let mapping) = $0 { mapping } else { nil } })
    }

    @Test("An embedded store moves into a cluster, and back; nothing that is newer is taken back, and servers go on meanwhile")
    func bothWays() throws {
        let directory = try TemporaryDirectory()
        let etcd = try EtcdMembers(["127.0.0.1"], in: directory)
        let server = try TestInstance(etcd.configuration())
        #expect(eventually { server.told.hasLoaded })
        var file = IMSConfiguration()
        file.storePath = "\(directory.path)/first.db"
        var cluster = IMSConfiguration()
        cluster.etcd = etcd.configuration()

        let nodes = try (1...20).map { try TestNode("192.0.2.\($0)", seed: UInt8($0)) }
        let all = try nodes.map { try $0.stored(100) }
        do {
            let session = StoreSession(try file.openStore())
            #expect(try read(session).isEmpty)
            #expect(
                try session.take(all.map { .mapping($0) } + [.certificate(try TestNode("192.0.2.99", seed: 99).certificate)])
                    .taken == 21)
            session.close()
        }
        // What the cluster holds of one of them already is newer.
        let newer = try nodes[0].stored(200)
        #expect(server.commit(1, StoreChange(mapping: newer)) == .durable)

        let source = StoreSession(try file.openStore())
        let exported = try read(source)
        source.close()
        let target = StoreSession(try cluster.openStore())
        _ = try read(target)
        let outcome = try target.take(exported)
        #expect(outcome.taken == 20 && outcome.older == 1)
        target.close()
        #expect(eventually { Set(server.told.changed.compactMap(\.mapping)).isSuperset(of: all.dropFirst()) })
        #expect(!server.told.changed.contains(StoreChange(mapping: all[0])))

        let back = StoreSession(try cluster.openStore())
        let lines = try read(back)
        back.close()
        #expect(mappings(lines) == Set(all.dropFirst() + [newer]))
        file.storePath = "\(directory.path)/second.db"
        let second = StoreSession(try file.openStore())
        _ = try read(second)
        #expect(try second.take(lines).taken == lines.count)
        second.close()
        let again = StoreSession(try file.openStore())
        #expect(mappings(try read(again)) == mappings(lines))
        again.close()
    }
}
