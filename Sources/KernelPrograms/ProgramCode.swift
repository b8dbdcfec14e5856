/// A program as clang has compiled it, without what only the running kernel knows: the maps that it names. `deploy/bytecode` makes these values of
/// the sources in `Programs`.
package struct ProgramCode: Sendable {
    /// A place where a map's descriptor belongs: an instruction's number, of those that take two.
    package struct Place: Sendable {
        var instruction: Int
        var map: String

        package init(_ instruction: Int, _ map: String) {
            self.instruction = instruction
            self.map = map
        }
    }

    /// At most 15 characters of it are seen in the kernel's lists.
    package let name: String
    /// As the kernel has them: opcode, registers, offset and number, of a little-endian machine.
    package let instructions: [UInt64]
    package let places: [Place]

    package init(name: String, instructions: [UInt64], places: [Place] = []) {
        self.name = name
        self.instructions = instructions
        self.places = places
    }

    /// The instructions with the maps' descriptors in their places.
    func linked(_ maps: [String: KernelMap]) throws(ProgramError) -> [UInt64] {
        #if _endian(big)
            throw ProgramError("load the program \(name): it is for little-endian machines", errno: 0)
        #endif
        // BPF_LD | BPF_IMM | BPF_DW; the upper half of the register octet says that the number is a map's descriptor (BPF_PSEUDO_MAP_FD).
        let (loadsWide, isMap): (UInt64, UInt64) = (0x18, 1 << 12)
        var result = instructions
        for place in places {
            guard let map = maps[place.map] else { throw ProgramError("load the program \(name): no map \(place.map) is given", errno: 0) }
            guard result.indices.contains(place.instruction), result[place.instruction] & 0xFF == loadsWide else {
                throw ProgramError("load the program \(name): instruction \(place.instruction) takes no map", errno: 0)
            }
            result[place.instruction] = result[place.instruction] & 0xFFF | isMap | UInt64(UInt32(bitPattern: map.descriptor)) << 32
        }
        return result
    }
}
