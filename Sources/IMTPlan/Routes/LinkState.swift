import MATSignal

/// A link as rtnetlink describes it.
package struct LinkState: Hashable {
    package var name: String
    package var flags: UInt32
    /// What headers its packets have, as ARPHRD_*.
    package var hardware: UInt16

    package init(name: String, flags: UInt32, hardware: UInt16 = KernelValues.hardwareEthernet) {
        self.name = name
        self.flags = flags
        self.hardware = hardware
    }
    package var isLoopback: Bool { flags & KernelValues.flagLoopback != 0 }
    package var isUp: Bool { flags & KernelValues.flagUp != 0 && flags & KernelValues.flagRunning != 0 }
}

/// An address as rtnetlink describes it.
package struct AddressState: Hashable {
    package var address: IPAddress
    package var interfaceIndex: UInt32
    package var prefixLength: UInt8
    package var flags: UInt32
    package var scope: UInt8
    /// When it was made, in hundredths of a second since the boot.
    package var created: UInt32 = 0

    package init(address: IPAddress, interfaceIndex: UInt32, prefixLength: UInt8, flags: UInt32, scope: UInt8, created: UInt32 = 0) {
        self.address = address
        self.interfaceIndex = interfaceIndex
        self.prefixLength = prefixLength
        self.flags = flags
        self.scope = scope
        self.created = created
    }
}
