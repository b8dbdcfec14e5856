import Glibc

/// The values of an array, in this process's memory: read and written without the kernel's help, while programs do the same.
///
/// A word of eight octets is read and written as a whole; words beside it may be of another moment.
package final class KernelMemory: @unchecked Sendable {
    private let start: UnsafeMutableRawPointer
    private let octets: Int
    private let stride: Int
    package let count: Int

    /// - Parameter map: an array whose shape says `isInMemory`. The memory stays when the map's value has gone.
    package init(_ map: KernelMap) throws(ProgramError) {
        let page = sysconf(Int32(_SC_PAGESIZE))
        stride = (map.shape.valueOctets + 7) / 8 * 8
        count = map.shape.entriesMax
        octets = (stride * count + page - 1) / page * page
        guard let start = mmap(nil, octets, PROT_READ | PROT_WRITE, MAP_SHARED, map.descriptor, 0), start != MAP_FAILED else {
            throw ProgramError("show the map \(map.shape.name) in memory")
        }
        self.start = start
    }

    deinit { munmap(start, octets) }

    /// - Parameters:
    ///   - value: below `count`.
    ///   - word: of eight octets, below the value's number of them.
    package subscript(value: Int, word: Int) -> UInt64 {
        get { place(value, word).load(as: UInt64.self) }
        set { place(value, word).storeBytes(of: newValue, as: UInt64.self) }
    }

    private func place(_ value: Int, _ word: Int) -> UnsafeMutableRawPointer {
        precondition(value >= 0 && value < count && word >= 0 && word * 8 < stride, "a word that the map has not")
        return start + (value * stride + word * 8)
    }
}
