import CMemory

/// The memory that a daemon occupies while nothing happens.
public enum ResidentMemory {
    /// Gives back what only the start needed: the heap's free ends, and the pages of code and constants. Those are backed by the programs'
    /// files: a page that is used again is mapped again, in some tenths of a microsecond, and those of the configuration parser, of
    /// locale tables and the like never are.
    public static func forgetStart() {
        mat_trim_heap()
        mat_forget_code()
    }
}
