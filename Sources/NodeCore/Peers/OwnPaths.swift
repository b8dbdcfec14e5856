import MATSignal

/// The own addresses that peers' traffic leaves from, by number. Peers keep the number: when an address goes, its number comes to
/// mean another, and all its peers have moved, however many there are. Two numbers may then mean the same address.
struct OwnPaths: Sendable {
    private struct Path: Sendable {
        let own: HomeAddress
        var moa: MobileAddress
        /// How often it came to mean another address.
        var moves: UInt32 = 0
    }

    /// The number that means no address.
    static let none: UInt8 = 0
    private var paths: [Path?] = [nil]

    subscript(number: UInt8) -> MobileAddress? { Int(number) < paths.count ? paths[Int(number)]?.moa : nil }

    /// The moves of all together that peers of this number have followed.
    func moves(_ number: UInt8) -> UInt32 { Int(number) < paths.count ? paths[Int(number)]?.moves ?? 0 : 0 }

    /// The lowest number that means this address of this own HoA, a new one if need be.
    ///
    /// - Parameter used: the numbers that peers have. Asked when all are taken, which takes hundreds of moves with overlap.
    mutating func number(of moa: MobileAddress, _ own: HomeAddress, used: () -> Set<UInt8>) -> UInt8 {
        if let known = paths.firstIndex(where: { $0?.moa == moa && $0?.own == own }) { return UInt8(known) }
        let path = Path(own: own, moa: moa)
        guard paths.count > Int(UInt8.max) else {
            paths.append(path)
            return UInt8(paths.count - 1)
        }
        let used = used()
        for number in 1..<paths.count where !used.contains(UInt8(number)) { paths[number] = nil }
        guard let free = paths.indices.dropFirst().first(where: { paths[$0] == nil }) else { return Self.none }
        paths[free] = path
        return UInt8(free)
    }

    /// What the numbers of an own HoA mean.
    func addresses(of own: HomeAddress) -> Set<MobileAddress> { Set(paths.compactMap { $0?.own == own ? $0?.moa : nil }) }

    /// The numbers that mean this address.
    func numbers(of moa: MobileAddress, _ own: HomeAddress) -> [UInt8] {
        paths.indices.filter { paths[$0]?.moa == moa && paths[$0]?.own == own }.map { UInt8($0) }
    }

    /// Whatever meant `old` means `new` from now on.
    mutating func move(_ old: MobileAddress, to new: MobileAddress, of own: HomeAddress) {
        for number in paths.indices where paths[number]?.moa == old && paths[number]?.own == own {
            paths[number]?.moa = new
            paths[number]?.moves &+= 1
        }
    }
}
