/// Something that was asked for and can't be expressed, such as an entry of two families, or more than there is room for.
package struct PlanError: Error, Hashable {
    /// What was being done, as a phrase: "commit the address mapping table".
    package let operation: String
    /// What is wrong with it.
    package let object: String

    package init(_ operation: String, _ object: String) {
        self.operation = operation
        self.object = object
    }
}
