import CMemory

/// The memory that a daemon occupies while nothing happens.
public enum ResidentMemory {
    /// Gives back what only the start needed: the heap's free ends, and the pages of code and constants. Those are in the files; what
    /// is used again is mapped again, at some tenths of a microsecond a page. Configuration parser, locale tables and the like are not.
    public static func forgetStart() {
        mat_trim_heap()
        mat_forget_code()
    }
}
