/// Something that went wrong in a benchmark, with what a person needs to know of it.
package struct BenchError: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
