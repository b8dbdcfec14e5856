import CLinux
import Glibc
import IMTPlan

/// What is known, and was changed, of the links' reverse path filters.
struct ReversePath {
    /// Links that were warned of.
    var warned: Set<String> = []
    /// Links that were loosened, with their setting before.
    var loosened: [UInt32: UInt8] = [:]
}

// Strict reverse path filtering (`rp_filter` 1) and several links.
//
// The kernel drops a packet if the route back to its source leads over another link than it came by. The source is the peer's HoA
// then, whose route leads over the link that we send by. A peer sends to us by another one for about a round trip of each handover
// with overlap, and for good where it prefers another MoA of ours. On a single link the two are always the same.
extension IMTKernel {
    private static let strict: UInt8 = 1, loose: UInt8 = 2

    /// Warns of strict filters on the MoAs' links, or loosens them, as configured. IPv6 has no such filter.
    func reviewReversePath() {
        let links = Dictionary(locators.filter { $0.address.isIPv4 }.map { ($0.interfaceIndex, $0.interface) }, uniquingKeysWith: { $1 })
        guard links.count > 1 else { return }
        let everywhere = Self.filter("all") ?? 0
        for (index, name) in links.sorted(by: { $0.key < $1.key }) {
            // The kernel takes the higher of the two.
            guard let own = Self.filter(name), max(own, everywhere) == Self.strict else { continue }
            if configuration.loosensReversePath {
                do throws(KernelError) {
                    try routes.setReversePath(Self.loose, index: index, name: name)
                    reversePath.loosened[index] = own
                } catch {
                    onEvent(.failed(error))
                }
            } else if reversePath.warned.insert(name).inserted {
                onEvent(
                    .warning(
                        "\(name) filters reverse paths strictly: packets that arrive by it while others leave by another link are lost, "
                            + "in each handover; set net.ipv4.conf.\(name).rp_filter=2, or reverse-path: loosen in matd.yaml"))
            }
        }
    }

    /// Puts back what was there before, unless somebody else has changed it since.
    func restoreReversePath() {
        for (index, value) in reversePath.loosened {
            guard let name = linkTables.links[index]?.name, Self.filter(name) == Self.loose else { continue }
            try? routes.setReversePath(value, index: index, name: name)
        }
        reversePath.loosened = [:]
    }

    private static func filter(_ name: String) -> UInt8? { setting("ipv4", name, "rp_filter") }

    /// A link's setting of one digit; `nil` if it is something else, or can't be read.
    static func setting(_ family: String, _ link: String, _ name: String) -> UInt8? {
        let descriptor = mat_open("/proc/sys/net/\(family)/conf/\(link)/\(name)", O_RDONLY | O_CLOEXEC, 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var digit: UInt8 = 0
        guard read(descriptor, &digit, 1) == 1, (48...57).contains(digit) else { return nil }
        return digit - 48
    }
}
