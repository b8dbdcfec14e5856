import CLinux
import Glibc
import MATRuntime

/// A program of classic BPF that the kernel runs on each datagram before it comes into a socket's queue: what it refuses costs neither room
/// nor a system call nor a wake-up. Written with labels, since jumps are counted in instructions.
///
/// Classic rather than eBPF: it needs no privilege, and no map, since whoever attaches it decides and attaches another when that changes.
package struct SocketFilter {
    /// Of a UDP socket: the datagram begins with its UDP header.
    package static let payloadOffset: UInt32 = 8
    /// A jump reaches so many instructions far; a program that is no longer needs none that goes farther.
    package static let instructionsMax = 255

    /// Where a jump goes.
    package enum Target: Hashable, Sendable {
        case next
        case label(String)
        case accept
        case refuse
    }

    private enum Step {
        case plain(UInt16, UInt32)
        case jump(UInt16, UInt32, then: Target, else: Target)
    }

    /// BPF's instruction classes, sizes, modes and operations (linux/bpf_common.h).
    private enum Code {
        static let load: UInt16 = 0x00
        static let arithmetic: UInt16 = 0x04
        static let jump: UInt16 = 0x05
        static let answer: UInt16 = 0x06
        static let transfer: UInt16 = 0x07
        static let word: UInt16 = 0x00
        static let half: UInt16 = 0x08
        static let octet: UInt16 = 0x10
        static let immediate: UInt16 = 0x00
        static let absolute: UInt16 = 0x20
        static let length: UInt16 = 0x80
        static let add: UInt16 = 0x00
        static let multiply: UInt16 = 0x20
        static let shiftLeft: UInt16 = 0x60
        static let shiftRight: UInt16 = 0x70
        static let exclusiveOr: UInt16 = 0xA0
        static let equal: UInt16 = 0x10
        static let greater: UInt16 = 0x20
        static let greaterOrEqual: UInt16 = 0x30
        static let anyBit: UInt16 = 0x40
        static let operandX: UInt16 = 0x08
    }
    /// What is not in the datagram (linux/filter.h): SKF_AD_OFF + SKF_AD_PROTOCOL, SKF_AD_OFF + SKF_AD_RANDOM, SKF_NET_OFF.
    private static let protocolPlace: UInt32 = 0xFFFF_F000
    private static let randomPlace: UInt32 = 0xFFFF_F000 + 56
    private static let networkHeader: UInt32 = 0xFFF0_0000
    /// What `loadProtocol` gives for a datagram that came over IPv6.
    package static let ipv6: UInt32 = 0x86DD

    private var steps: [Step] = []
    private var labels: [String: Int] = [:]

    package init() {}

    // MARK: Instructions; each works on one number, A, and some on another, X

    package mutating func load(_ number: UInt32) { steps.append(.plain(Code.load | Code.immediate, number)) }
    package mutating func loadLength() { steps.append(.plain(Code.load | Code.word | Code.length, 0)) }
    package mutating func loadOctet(at place: UInt32) { steps.append(.plain(Code.load | Code.octet | Code.absolute, place)) }
    package mutating func loadHalf(at place: UInt32) { steps.append(.plain(Code.load | Code.half | Code.absolute, place)) }
    /// A word of the IP header.
    package mutating func loadIPWord(at place: UInt32) { steps.append(.plain(Code.load | Code.word | Code.absolute, Self.networkHeader + place)) }
    package mutating func loadProtocol() { steps.append(.plain(Code.load | Code.word | Code.absolute, Self.protocolPlace)) }
    package mutating func loadRandom() { steps.append(.plain(Code.load | Code.word | Code.absolute, Self.randomPlace)) }
    package mutating func add(_ number: UInt32) { steps.append(.plain(Code.arithmetic | Code.add, number)) }
    package mutating func multiply(by number: UInt32) { steps.append(.plain(Code.arithmetic | Code.multiply, number)) }
    package mutating func shiftLeft(_ bits: UInt32) { steps.append(.plain(Code.arithmetic | Code.shiftLeft, bits)) }
    package mutating func shiftRight(_ bits: UInt32) { steps.append(.plain(Code.arithmetic | Code.shiftRight, bits)) }
    package mutating func shiftRightByX() { steps.append(.plain(Code.arithmetic | Code.shiftRight | Code.operandX, 0)) }
    package mutating func exclusiveOrX() { steps.append(.plain(Code.arithmetic | Code.exclusiveOr | Code.operandX, 0)) }
    /// X becomes A.
    package mutating func keepInX() { steps.append(.plain(Code.transfer, 0)) }

    package mutating func ifEqual(_ number: UInt32, _ then: Target, else other: Target = .next) {
        steps.append(.jump(Code.jump | Code.equal, number, then: then, else: other))
    }
    package mutating func ifGreater(_ number: UInt32, _ then: Target, else other: Target = .next) {
        steps.append(.jump(Code.jump | Code.greater, number, then: then, else: other))
    }
    package mutating func ifLess(_ number: UInt32, _ then: Target, else other: Target = .next) {
        steps.append(.jump(Code.jump | Code.greaterOrEqual, number, then: other, else: then))
    }
    package mutating func ifLessThanX(_ then: Target, else other: Target = .next) {
        steps.append(.jump(Code.jump | Code.greaterOrEqual | Code.operandX, 0, then: other, else: then))
    }
    package mutating func ifAnyBit(of number: UInt32, _ then: Target, else other: Target = .next) {
        steps.append(.jump(Code.jump | Code.anyBit, number, then: then, else: other))
    }
    /// Whatever A is.
    package mutating func go(to target: Target) { ifEqual(0, target, else: target) }
    package mutating func label(_ name: String) { labels[name] = steps.count }

    /// The instructions, with an end that accepts and one that refuses; `nil` if a jump goes nowhere, back, or too far.
    package var instructions: [sock_filter]? {
        guard steps.count + 2 <= Self.instructionsMax else { return nil }
        var result: [sock_filter] = []
        for (place, step) in steps.enumerated() {
            func distance(_ target: Target) -> UInt8? {
                let end: Int? =
                    switch target {
                    case .next: place + 1
                    case .label(let name): labels[name]
                    case .accept: steps.count
                    case .refuse: steps.count + 1
                    }
                return end.flatMap { $0 > place ? UInt8(exactly: $0 - place - 1) : nil }
            }
            switch step {
            case .plain(let code, let number): result.append(sock_filter(code: code, jt: 0, jf: 0, k: number))
            case .jump(let code, let number, let then, let other):
                guard let then = distance(then), let other = distance(other) else { return nil }
                result.append(sock_filter(code: code, jt: then, jf: other, k: number))
            }
        }
        return result + [sock_filter(code: Code.answer, jt: 0, jf: 0, k: .max), sock_filter(code: Code.answer, jt: 0, jf: 0, k: 0)]
    }

    /// Has the kernel run it on what comes to this socket from now on, instead of an earlier one.
    package func attach(to descriptor: Int32) throws(SystemError) {
        guard let instructions else { throw SystemError("a socket filter with a jump to nowhere", errno: EINVAL) }
        guard mat_attach_filter(descriptor, instructions, UInt16(instructions.count)) == 0 else { throw SystemError("setsockopt SO_ATTACH_FILTER") }
    }

    /// What the kernel did not put into this socket's queue, because a filter refused it or there was no room; modulo 2^32.
    package static func drops(of descriptor: Int32) -> UInt32 { mat_socket_drops(descriptor) }
}
