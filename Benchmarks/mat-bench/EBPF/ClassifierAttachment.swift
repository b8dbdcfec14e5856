import BenchSupport
import CLinux
import Glibc

/// Ties a classifier to a link of the calling thread's namespace.
enum ClassifierAttachment {
    /// linux/pkt_sched.h: TC_H_CLSACT, and its two chains of filters.
    private static let clsact: UInt32 = 0xFFFF_FFF1, ingress: UInt32 = 0xFFFF_FFF2, egress: UInt32 = 0xFFFF_FFF3
    private static let newQdisc: UInt16 = 36, newFilter: UInt16 = 44
    private static let kind: UInt16 = 1, options: UInt16 = 2
    private static let optionDescriptor: UInt16 = 6, optionName: UInt16 = 7, optionFlags: UInt16 = 8
    private static let directAction: UInt32 = 1
    private static let priority: UInt32 = 0x8000

    static func index(of link: String) throws -> UInt32 {
        let index = if_nametoindex(link)
        guard index > 0 else { throw BenchError("there is no link \(link)") }
        return index
    }

    /// The place for classifiers on a link, in both directions.
    static func addPlace(on link: UInt32) throws {
        try send(
            newQdisc, link, handle: 0xFFFF_0000, parent: clsact, information: 0, attribute(kind, text: "clsact"), "add clsact")
    }

    static func attach(_ program: BPFProgram, to link: UInt32, _ direction: TranslationProgram.Direction, isIPv4: Bool) throws {
        let etherType: UInt16 = isIPv4 ? 0x0800 : 0x86DD
        let nested =
            attribute(optionDescriptor, UInt32(bitPattern: program.descriptor)) + attribute(optionName, text: "mat")
            + attribute(optionFlags, directAction)
        try send(
            newFilter, link, handle: 0, parent: direction == .egress ? egress : ingress,
            information: priority << 16 | UInt32(etherType.bigEndian), attribute(kind, text: "bpf") + attribute(options, nested),
            "attach a BPF program")
    }

    /// The younger way (kernel 6.6): no qdisc, no filter list.
    /// - Returns: a descriptor that holds the attachment.
    static func attachTCX(_ program: BPFProgram, to link: UInt32, _ direction: TranslationProgram.Direction) throws -> Int32 {
        let descriptor = mat_bpf_attach_tcx(program.descriptor, link, direction == .egress ? 47 : 46)
        guard descriptor >= 0 else { throw BenchError("attach a BPF program with tcx: errno \(errno)") }
        return descriptor
    }

    // MARK: rtnetlink

    private static func attribute(_ type: UInt16, _ payload: [UInt8]) -> [UInt8] {
        let length = UInt16(4 + payload.count)
        return native(length) + native(type) + payload + [UInt8](repeating: 0, count: (4 - payload.count % 4) % 4)
    }
    private static func attribute(_ type: UInt16, _ value: UInt32) -> [UInt8] { attribute(type, native(value)) }
    private static func attribute(_ type: UInt16, text: String) -> [UInt8] { attribute(type, Array(text.utf8) + [0]) }
    private static func native<T: FixedWidthInteger>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }

    /// Sends one request and waits for what the kernel says to it.
    private static func send(
        _ type: UInt16, _ link: UInt32, handle: UInt32, parent: UInt32, information: UInt32, _ attributes: [UInt8], _ what: String
    ) throws {
        // struct tcmsg: family and padding 4, link 4, handle 4, parent 4, information 4.
        let body = native(UInt32(0)) + native(link) + native(handle) + native(parent) + native(information) + attributes
        // NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE.
        let header =
            native(UInt32(16 + body.count)) + native(type) + native(UInt16(0x605)) + native(UInt32(1)) + native(UInt32(0))
        let message = header + body
        let socket = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue), 0)
        guard socket >= 0 else { throw BenchError("open rtnetlink: errno \(errno)") }
        defer { close(socket) }
        guard Glibc.send(socket, message, message.count, 0) == message.count else { throw BenchError("\(what): errno \(errno)") }
        var answer = [UInt8](repeating: 0, count: 8192)
        let count = recv(socket, &answer, answer.count, 0)
        guard count >= 20 else { throw BenchError("\(what): the kernel does not answer") }
        let code = answer.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 16, as: Int32.self) }
        guard code == 0 else { throw BenchError("\(what): errno \(-code)") }
    }
}
