import CLinux
import Glibc

/// Programs as traffic-control classifiers, by rtnetlink: a qdisc that holds filters for both directions (clsact), and in each our filter.
///
/// The filter is known by its preference and handle. The qdisc may be somebody's who came before: it goes with our last filter if none is left.
enum Classifiers {
    /// linux/pkt_sched.h: TC_H_CLSACT, and its two chains of filters.
    private static let clsact: UInt32 = 0xFFFF_FFF1, ingress: UInt32 = 0xFFFF_FFF2, egress: UInt32 = 0xFFFF_FFF3
    private static let newQdisc: UInt16 = 36, deleteQdisc: UInt16 = 37, newFilter: UInt16 = 44, deleteFilter: UInt16 = 45, getFilter: UInt16 = 46
    private static let kind: UInt16 = 1, options: UInt16 = 2
    private static let optionDescriptor: UInt16 = 6, optionName: UInt16 = 7, optionFlags: UInt16 = 8
    private static let directAction: UInt32 = 1
    /// The owner's preference, all protocols (ETH_P_ALL, in network order).
    private static func information(_ owner: ProgramPlace.Owner) -> UInt32 { owner.rawValue << 16 | UInt32(UInt16(3).bigEndian) }
    private static let handle: UInt32 = 1
    /// NLM_F_REQUEST, NLM_F_ACK; NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE; NLM_F_DUMP.
    private static let asks: UInt16 = 0x5, creates: UInt16 = 0x400, isNew: UInt16 = 0x200, replaces: UInt16 = 0x100, dumps: UInt16 = 0x301

    private static func parent(_ direction: ProgramPlace.Direction) -> UInt32 { direction == .egress ? egress : ingress }

    /// Puts the program there, in the place of ours that may be there.
    static func set(
        _ program: KernelProgram, on interface: UInt32, _ direction: ProgramPlace.Direction, of owner: ProgramPlace.Owner
    ) throws(ProgramError) {
        do throws(ProgramError) {
            let qdisc = attribute(kind, text: "clsact")
            _ = try exchange(
                newQdisc, asks | creates | isNew, interface, handle: 0xFFFF_0000, parent: clsact, information: 0, qdisc,
                "add clsact to interface \(interface)")
        } catch {
            guard error.errno == EEXIST else { throw error }
        }
        let nested =
            attribute(optionDescriptor, UInt32(bitPattern: program.descriptor)) + attribute(optionName, text: program.name)
            + attribute(optionFlags, directAction)
        _ = try exchange(
            newFilter, asks | creates | replaces, interface, handle: handle, parent: parent(direction), information: information(owner),
            attribute(kind, text: "bpf") + attribute(options, nested), "tie \(program.name) to interface \(interface) (clsact)")
    }

    static func has(on interface: UInt32, _ direction: ProgramPlace.Direction, of owner: ProgramPlace.Owner) -> Bool {
        ((try? filters(of: interface, direction)) ?? []).contains(owner.rawValue)
    }

    static func remove(
        from interface: UInt32, _ direction: ProgramPlace.Direction, of owner: ProgramPlace.Owner
    ) throws(ProgramError) {
        guard has(on: interface, direction, of: owner) else { return }
        _ = try exchange(
            deleteFilter, asks, interface, handle: handle, parent: parent(direction), information: information(owner),
            attribute(kind, text: "bpf"),
            "remove our program from interface \(interface)")
        guard try filters(of: interface, .ingress).isEmpty, try filters(of: interface, .egress).isEmpty else { return }
        _ = try exchange(
            deleteQdisc, asks, interface, handle: 0xFFFF_0000, parent: clsact, information: 0, [], "remove clsact from interface \(interface)")
    }

    /// The preferences of a direction's filters, some of them several times.
    private static func filters(of interface: UInt32, _ direction: ProgramPlace.Direction) throws(ProgramError) -> [UInt32] {
        try exchange(
            getFilter, dumps, interface, handle: 0, parent: parent(direction), information: 0, [], "list the filters of interface \(interface)"
        ).map { $0 >> 16 }
    }

    // MARK: rtnetlink

    private static func attribute(_ type: UInt16, _ payload: [UInt8]) -> [UInt8] {
        native(UInt16(truncatingIfNeeded: 4 + payload.count)) + native(type) + payload + [UInt8](repeating: 0, count: (4 - payload.count % 4) % 4)
    }
    private static func attribute(_ type: UInt16, _ value: UInt32) -> [UInt8] { attribute(type, native(value)) }
    private static func attribute(_ type: UInt16, text: String) -> [UInt8] { attribute(type, Array(text.utf8) + [0]) }
    private static func native<T: FixedWidthInteger>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }

    /// Sends one request and takes all that the kernel says to it.
    /// - Returns: the information (preference and protocol) of the filters that it lists.
    private static func exchange(
        _ type: UInt16, _ flags: UInt16, _ interface: UInt32, handle: UInt32, parent: UInt32, information: UInt32, _ attributes: [UInt8],
        _ what: String
    ) throws(ProgramError) -> [UInt32] {
        // struct tcmsg: family and room 4, link 4, handle 4, parent 4, information 4.
        let body = native(UInt32(0)) + native(interface) + native(handle) + native(parent) + native(information) + attributes
        let header = native(UInt32(truncatingIfNeeded: 16 + body.count)) + native(type) + native(flags) + native(UInt32(1)) + native(UInt32(0))
        let message = header + body
        let socket = Glibc.socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard socket >= 0 else { throw ProgramError("open rtnetlink") }
        defer { close(socket) }
        var patience = timeval(tv_sec: 2, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        guard send(socket, message, message.count, 0) == message.count else { throw ProgramError(what) }
        var listed: [UInt32] = []
        var answer = [UInt8](repeating: 0, count: 32_768)
        while true {
            let count = recv(socket, &answer, answer.count, 0)
            guard count >= 16 else { throw ProgramError("\(what): the kernel does not answer") }
            let code: Int32? = answer.withUnsafeBytes { raw in
                func word(_ offset: Int) -> UInt32 { raw.loadUnaligned(fromByteOffset: offset, as: UInt32.self) }
                var start = 0
                while start + 16 <= count {
                    let length = Int(word(start))
                    guard length >= 16, start + length <= count else { return EBADMSG }
                    switch raw.loadUnaligned(fromByteOffset: start + 4, as: UInt16.self) {
                    // NLMSG_ERROR, which may be an acknowledgement; NLMSG_DONE.
                    case 2: return length >= 20 ? -Int32(bitPattern: word(start + 16)) : EBADMSG
                    case 3: return length >= 20 ? -Int32(bitPattern: word(start + 16)) : 0
                    case newFilter where length >= 36: listed.append(word(start + 32))
                    default: break
                    }
                    start += (length + 3) / 4 * 4
                }
                return nil
            }
            guard let code else { continue }
            guard code == 0 else { throw ProgramError(what, errno: code) }
            return listed
        }
    }
}
