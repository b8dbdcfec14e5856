// Made by deploy/bytecode of Programs/marks.bpf.c: change that, not this.

package enum MarksPrograms {
    package static let mark = ProgramCode(
        name: "mark",
        instructions: [
            0x00000000000016bf, 0x00000000000001b4, 0x00000000fffc1a63, 0x000000000000a2bf,
            0xfffffffc00000207, 0x0000000000000118, 0x0000000000000000, 0x0000000100000085,
            0x00000000000a0015, 0x0000000000106161, 0x0000000000080156, 0x00000000000061bf,
            0x00000000000007bf, 0x0000007a00000085, 0x00000000000071bf, 0x0000000000001279,
            0x000000000002205d, 0x0000000000081161, 0x0000000000101663, 0x00000001000000b4,
            0x0000000000000095,
        ],
        places: [
            ProgramCode.Place(5, "marking")
        ])
}
