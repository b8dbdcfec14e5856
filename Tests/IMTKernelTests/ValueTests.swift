import MATSignal
import Testing

@testable import IMTKernel
@testable import IMTPlan

/// What can be said without a kernel.
@Suite("Netlink's octets")
struct ValueTests {
    @Test("Elements of a transaction have the octets that the kernel's attributes prescribe")
    func elementOctets() throws {
        // nft 'add element ip t out { 192.0.2.1 . 198.51.100.1 : 10.1.0.2 . 10.9.0.2 }', without nft's padding.
        let table = TableDefinition(family: .ipv4, name: "t", sets: [], chains: [])
        var batch = NFTBatch(firstSequence: 7)
        let key: [UInt8] = [192, 0, 2, 1, 198, 51, 100, 1]
        batch.add([SetElement(key: key, data: [10, 1, 0, 2, 10, 9, 0, 2])], to: "out", of: table)
        let bytes = batch.seal().bytes
        let element: [UInt8] = [
            0x24, 0, 0x01, 0x80,  // list item
            0x10, 0, 0x01, 0x80, 0x0C, 0, 0x01, 0, 192, 0, 2, 1, 198, 51, 100, 1,  // key { value }
            0x10, 0, 0x02, 0x80, 0x0C, 0, 0x01, 0, 10, 1, 0, 2, 10, 9, 0, 2,  // data { value }
        ]
        // Begin (20 octets), then header 16, nfgenmsg 4, table "t" 8, set "out" 8, list header 4.
        #expect(bytes.count == 20 + 40 + element.count + 20)
        #expect(Array(bytes[60..<60 + element.count]) == element)
        #expect(Array(bytes[0..<20]) == [20, 0, 0, 0, 16, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10])
        #expect(Array(bytes[20..<32]) == [76, 0, 0, 0, 12, 10, 0x05, 0x04, 8, 0, 0, 0])
    }

    @Test("Netlink datagrams that lie about their length end the reading, not the process")
    func netlinkHostile() {
        let good: [UInt8] = [24, 0, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 1, 2, 3, 4]
        for index in good.indices {
            for value in [UInt8(0), 1, 3, 7, 0x7F, 0xFF] {
                var broken = good
                broken[index] = value
                broken.withUnsafeBytes { raw in
                    NetlinkIncoming.forEach(in: raw) { incoming in
                        for attribute in incoming.attributes(after: 0) { _ = attribute.address }
                        _ = NetlinkFailure.decode(incoming)
                        _ = KernelRoute.decode(incoming)
                        _ = KernelRule.decode(incoming)
                        _ = KernelElement.decodeList(incoming)
                        for isIPv4 in [true, false] { _ = SocketSearch.decode(incoming, family: isIPv4 ? .ipv4 : .ipv6) }
                    }
                }
            }
        }
    }
}
