/// What is known, and was changed, of the links' reverse path filters.
///
/// Strict reverse path filtering (`rp_filter` 1) and several links: the kernel drops a packet if the route back to its source leads over another
/// link than it came by. The source is the peer's HoA then, whose route leads over the link that we send by. A peer sends to us by another one for
/// about a round trip of each handover with overlap, and for good where it prefers another MoA of ours. On a single link the two are always the same.
package struct ReversePaths {
    package static let strict: UInt8 = 1, loose: UInt8 = 2

    package enum OnStrictLink: Equatable {
        case nothing
        case warn
        /// To be noted with `loosened` once done.
        case loosen
    }

    /// Links that were warned of.
    private var warned: Set<String> = []
    /// Links that were loosened, with their setting before.
    private var settings: [UInt32: UInt8] = [:]

    package init() {}

    /// What is to be done about a link of several that have MoAs.
    ///
    /// - Parameters:
    ///   - own: the link's setting.
    ///   - everywhere: the host's; the kernel takes the higher of the two.
    package mutating func review(_ name: String, own: UInt8, everywhere: UInt8, loosens: Bool) -> OnStrictLink {
        guard max(own, everywhere) == Self.strict else { return .nothing }
        if loosens { return .loosen }
        return warned.insert(name).inserted ? .warn : .nothing
    }

    package mutating func loosened(_ index: UInt32, before: UInt8) { settings[index] = before }

    /// The settings to put back, by link. They are forgotten.
    package mutating func restore() -> [(index: UInt32, setting: UInt8)] {
        defer { settings = [:] }
        return settings.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }
}
