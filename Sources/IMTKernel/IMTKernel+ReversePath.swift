import IMTPlan

// Reverse path filters of the MoAs' links; see `ReversePaths`.
extension IMTKernel {
    /// Warns of strict filters on the MoAs' links, or loosens them, as configured. IPv6 has no such filter.
    func reviewReversePath() {
        let links = Dictionary(locators.filter { $0.address.family == .ipv4 }.map { ($0.interfaceIndex, $0.interface) }, uniquingKeysWith: { $1 })
        guard links.count > 1 else { return }
        let everywhere = Self.filter("all") ?? 0
        for (index, name) in links.sorted(by: { $0.key < $1.key }) {
            guard let own = Self.filter(name) else { continue }
            switch reversePaths.review(name, own: own, everywhere: everywhere, loosens: configuration.loosensReversePath) {
            case .nothing: break
            case .warn:
                onEvent(
                    .warning(
                        "\(name) filters reverse paths strictly: packets that arrive by it while others leave by another link are lost, "
                            + "in each handover; set net.ipv4.conf.\(name).rp_filter=2, or reverse-path: loosen in matd.yaml"))
            case .loosen:
                do throws(KernelError) {
                    try routes.setReversePath(ReversePaths.loose, index: index, name: name)
                    reversePaths.loosened(index, before: own)
                } catch {
                    onEvent(.failed(error))
                }
            }
        }
    }

    /// Puts back what was there before, unless somebody else has changed it since.
    func restoreReversePath() {
        for (index, value) in reversePaths.restore() {
            guard let name = linkTables.links[index]?.name, Self.filter(name) == ReversePaths.loose else { continue }
            try? routes.setReversePath(value, index: index, name: name)
        }
    }

    private static func filter(_ name: String) -> UInt8? { setting("ipv4", name, "rp_filter") }

    /// A link's setting, as `KernelSetting`.
    static func setting(_ family: String, _ link: String, _ name: String) -> UInt8? { KernelSetting.digit("net/\(family)/conf/\(link)/\(name)") }
}
