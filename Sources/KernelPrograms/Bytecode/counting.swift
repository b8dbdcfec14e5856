// Made by deploy/bytecode of Programs/counting.bpf.c: change that, not this.

package enum CountingPrograms {
    package static let count = ProgramCode(
        name: "count",
        instructions: [
            0x00000000000016bf, 0x00000000000001b4, 0x00000000fffc1a63, 0x000000000000a2bf,
            0xfffffffc00000207, 0x0000000000000118, 0x0000000000000000, 0x0000000100000085,
            0x0000000000040015, 0x00000001000001b7, 0x00000001000010db, 0x0000000000006161,
            0x00000001000810db, 0xffffffff000000b4, 0x0000000000000095,
        ],
        places: [
            ProgramCode.Place(5, "counts")
        ])
}
