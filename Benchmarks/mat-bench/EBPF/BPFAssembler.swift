import BenchSupport

/// Writes programs for the kernel's BPF machine (RFC 9669), so that none has to be compiled where MAT runs.
///
/// Eleven registers of 64 bits: `r0` results, `r1`-`r5` arguments (lost at a call), `r6`-`r9` kept, `r10` the end of the stack.
struct BPFAssembler {
    enum Register: UInt8 { case r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10 }
    enum Width: UInt8 { case word = 0x00, half = 0x08, octet = 0x10 }
    enum Operation: UInt8 { case add = 0x00, and = 0x50, shiftRight = 0x70, xor = 0xA0, move = 0xB0 }
    enum Condition: UInt8 { case equal = 0x10, greater = 0x20, notEqual = 0x50 }
    /// A place in the program that jumps lead to.
    struct Label: Hashable { fileprivate var number: Int }
    /// Numbers of `enum bpf_func_id` (linux/bpf.h).
    enum Helper: Int32 { case mapLookup = 1, l4ChecksumReplace = 11, checksumUpdate = 40 }

    struct Instruction: Equatable {
        var opcode: UInt8
        var destination: Register
        var source: UInt8
        var offset: Int16
        var immediate: Int32

        /// struct bpf_insn: the two registers share an octet, whose halves follow the machine's bit order.
        var octets: [UInt8] {
            #if _endian(little)
                let registers = source << 4 | destination.rawValue
            #else
                let registers = destination.rawValue << 4 | source
            #endif
            return [opcode, registers] + withUnsafeBytes(of: offset) { Array($0) } + withUnsafeBytes(of: immediate) { Array($0) }
        }
    }

    private(set) var instructions: [Instruction] = []
    private var places: [Label: Int] = [:]
    private var jumps: [(at: Int, to: Label)] = []
    private var labels = 0

    private mutating func emit(
        _ opcode: UInt8, _ destination: Register = .r0, source: UInt8 = 0, offset: Int16 = 0, immediate: Int32 = 0
    ) {
        instructions.append(
            Instruction(opcode: opcode, destination: destination, source: source, offset: offset, immediate: immediate))
    }

    // MARK: Moving and reckoning (64 bits; `32` forms clear the upper half)

    mutating func alu(_ operation: Operation, _ destination: Register, _ source: Register) {
        emit(0x0F | operation.rawValue, destination, source: source.rawValue)
    }
    mutating func alu(_ operation: Operation, _ destination: Register, _ value: Int32) {
        emit(0x07 | operation.rawValue, destination, immediate: value)
    }
    mutating func alu32(_ operation: Operation, _ destination: Register, _ source: Register) {
        emit(0x0C | operation.rawValue, destination, source: source.rawValue)
    }
    mutating func alu32(_ operation: Operation, _ destination: Register, _ value: Int32) {
        emit(0x04 | operation.rawValue, destination, immediate: value)
    }
    mutating func load(_ destination: Register, _ base: Register, _ offset: Int, _ width: Width = .word) {
        emit(0x61 | width.rawValue, destination, source: base.rawValue, offset: Int16(clamping: offset))
    }
    mutating func store(_ base: Register, _ offset: Int, _ source: Register, _ width: Width = .word) {
        emit(0x63 | width.rawValue, base, source: source.rawValue, offset: Int16(clamping: offset))
    }
    /// A map's address, which the kernel puts in place of its descriptor. Takes two instructions.
    mutating func loadMap(_ destination: Register, _ descriptor: Int32) {
        emit(0x18, destination, source: 1, immediate: descriptor)
        emit(0)
    }

    // MARK: Going elsewhere

    mutating func call(_ helper: Helper) { emit(0x85, immediate: helper.rawValue) }
    mutating func exit() { emit(0x95) }

    mutating func label() -> Label {
        labels += 1
        return Label(number: labels)
    }
    mutating func place(_ label: Label) { places[label] = instructions.count }
    mutating func jump(to label: Label) {
        jumps.append((instructions.count, label))
        emit(0x05)
    }
    /// Compares 64 bits.
    mutating func jump(if condition: Condition, _ a: Register, _ b: Register, to label: Label) {
        jumps.append((instructions.count, label))
        emit(0x0D | condition.rawValue, a, source: b.rawValue)
    }
    mutating func jump(if condition: Condition, _ a: Register, _ value: Int32, to label: Label) {
        jumps.append((instructions.count, label))
        emit(0x05 | condition.rawValue, a, immediate: value)
    }
    /// Compares the lower 32 bits.
    mutating func jump32(if condition: Condition, _ a: Register, _ value: Int32, to label: Label) {
        jumps.append((instructions.count, label))
        emit(0x06 | condition.rawValue, a, immediate: value)
    }

    // MARK: The result

    /// The program with all jumps resolved. The kernel's verifier judges the rest.
    func assembled() throws -> [Instruction] {
        var result = instructions
        for jump in jumps {
            guard let place = places[jump.to], let distance = Int16(exactly: place - jump.at - 1) else {
                throw BenchError("BPF instruction \(jump.at) jumps to a label that is nowhere, or too far away")
            }
            result[jump.at].offset = distance
        }
        return result
    }
}
