import IMTPlan
import MATSignal

// The DNS's packets: those of other processes that must not wait for a look-up, and the way to a resolver.
extension IMTKernel {
    /// Sends a held packet on as if nothing had captured it: by the main table, and with the source of the link that it leaves by. Its
    /// destination is not plain for that; the next packet is held again.
    ///
    /// - Parameter interface: the link to leave by, because the one that the main table prefers is dead; `nil`: the main table decides.
    public func passOutbound(_ packet: HeldPacket, by interface: String? = nil) {
        needSourceTranslation(for: packet)
        let link = interface.flatMap { name in linkTables.links.first { $0.value.name == name }?.key } ?? 0
        do throws(KernelError) {
            try injector.pass(packet, mark: configuration.mark, interface: link)
        } catch {
            onEvent(.failed(error))
        }
    }

    /// Whether the main table knows a way of its own to this address, which is not just where everything goes: a network at a link, or a
    /// tunnel to where this address is.
    public func hasOwnRoute(to address: IPAddress) -> Bool {
        !linkTables.main.longestMatch(address) { $0.destination.familyLength > 0 && linkTables.links[$0.interfaceIndex]?.isUp == true }.isEmpty
    }
}
